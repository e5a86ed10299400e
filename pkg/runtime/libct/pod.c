// Makes the namespaces of a pod and holds them while the engine pins them.
// Where the pod shares a PID namespace, a child stays as its PID 1.
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// NOBODY is the user of PID 1; user namespaces of pods map at least so many.
enum { NOBODY = 65534 };

static void reply(const char *text)
{
	if (write(FD_REPLY, text, strlen(text)) < 0)
		_exit(254);
}

static void await(void)
{
	char c;
	if (read(FD_REPLY, &c, 1) != 1)
		_exit(254); // the engine is gone
}

static void make_user_namespace(void)
{
	if (unshare(CLONE_NEWUSER) < 0)
		fail(errno, "make user namespace", "");
	reply("map");
	await();
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
		fail(errno, "become root of the user namespace", "");
}

static void set_sysctls(struct request *r)
{
	for (uint32_t n = request_number(r); n > 0; n--) {
		const char *path = request_string(r);
		const char *value = request_string(r);
		int err = put(path, value, strlen(value));
		if (err)
			fail(err, "set", path);
	}
}

// leave_host gives PID 1 an empty root of its own, no user, no capability and
// no file: whoever may look into it from the pod finds nothing of the host.
static void leave_host(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		fail(errno, "make mount namespace of PID 1", "");
	if (mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,nr_inodes=1,mode=555") < 0 || chdir("/dev") < 0)
		fail(errno, "make root of PID 1", "");
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		fail(errno, "enter root of PID 1", "");
	drop_bounding_set(0);
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) < 0 || syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) < 0)
		fail(errno, "drop user of PID 1", "");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || set_capabilities(0, 0, 0) < 0)
		fail(errno, "drop privileges of PID 1", "");
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

// init_main reaps what its namespace orphans, and ends on SIGTERM, which ends
// the namespace.
static void init_main(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_NAME, "berth-pod", 0, 0, 0);
	setsid();
	leave_host();
	reply("up");
	await(); // until the engine can find us again by our cgroup
	syscall(SYS_close_range, 0, ~0U, 0);
	for (;;) {
		int sig = sigwaitinfo(&all, NULL);
		if (sig == SIGTERM || sig == SIGINT)
			_exit(0);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

// start_init forks PID 1 as a child of the engine, who so can see and reap it.
static void start_init(void)
{
	char text[32];
	long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, 0);
	if (pid < 0)
		fail(errno, "start PID 1", "");
	if (pid == 0) {
		init_main();
	}
	snprintf(text, sizeof text, "pid %ld", pid);
	reply(text);
}

void pod_main(void)
{
	struct request r;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	request_open(&r);
	uint32_t namespaces = request_number(&r);
	const char *hostname = request_string(&r);
	if (namespaces & CLONE_NEWUSER)
		make_user_namespace();
	if (unshare(namespaces & ~CLONE_NEWUSER) < 0)
		fail(errno, "make namespaces", "");
	if (*hostname && sethostname(hostname, strlen(hostname)) < 0)
		fail(errno, "set hostname", hostname);
	set_sysctls(&r);
	if (namespaces & CLONE_NEWPID)
		start_init();
	reply("made");
	await(); // until the engine has pinned them
	_exit(0);
}

// One more process in a container. The engine has forked this one into the
// container's PID namespace and, on cgroup v2, into its sub-cgroup; the order
// of the steps below is that of libcontainer's setns init.
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

// Flags of a request; exec_request.go has the same.
enum {
	NO_NEW_PRIVS = 1,
	TERMINAL = 2,
	HAS_UMASK = 4,
	HAS_CAPS = 8,
};

struct process {
	uint32_t flags, namespaces, umask, uid, gid;
	const char *keyring, *label, *apparmor, *cwd;
	char **args, **env, **groups;
	uint32_t group_count, seccomp_flags, seccomp_len;
	const char *seccomp;
	uint64_t bounding, effective, permitted, inheritable, ambient;
};

static uint64_t wide(struct request *r)
{
	uint64_t low = request_number(r);
	return low | (uint64_t)request_number(r) << 32;
}

// join_cgroups moves this process, by its only thread, into v1 cgroups: "0" in
// tasks spares the kernel the lock that cgroup.procs takes against forks.
static void join_cgroups(struct request *r)
{
	for (char **file = request_strings(r, NULL); *file; file++) {
		int err = put(*file, "0", 1);
		if (err)
			fail(err, "join cgroup", *file);
	}
	static const unsigned char all[8192] = { [0 ... 8191] = 0xff };
	syscall(SYS_sched_setaffinity, 0, sizeof all, all); // or we keep the runtime's; the cpuset still holds
}

static void set_limits(struct request *r)
{
	const char *adj = request_string(r);
	if (*adj) {
		int err = put("/proc/self/oom_score_adj", adj, strlen(adj));
		if (err)
			fail(err, "set oom_score_adj", adj);
	}
	for (uint32_t n = request_number(r); n > 0; n--) {
		uint32_t resource = request_number(r);
		struct rlimit limit;
		limit.rlim_cur = wide(r);
		limit.rlim_max = wide(r);
		if (setrlimit(resource, &limit) < 0)
			fail(errno, "set resource limit", "");
	}
}

static void join_namespaces(struct process *p)
{
	if (p->namespaces && setns(FD_TARGET, p->namespaces) < 0)
		fail(errno, "join the container's namespaces", "");
	close(FD_TARGET);
	if (syscall(SYS_setgroups, 0, NULL) < 0)
		fail(errno, "clear groups", "");
	if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
		fail(errno, "become root of the container", "");
	if (setsid() < 0)
		fail(errno, "make a session", "");
	if (*p->keyring && syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, p->keyring, 0, 0, 0) < 0 && errno != ENOSYS)
		fail(errno, "join session keyring", "");
}

static void send_terminal(int master)
{
	char name[] = "/dev/ptmx";
	struct iovec text = { name, sizeof name - 1 };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr message = { .msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &master, sizeof master);
	if (sendmsg(FD_CONSOLE, &message, MSG_NOSIGNAL) < 0)
		fail(errno, "send the terminal", "");
}

// make_terminal opens a terminal of the container's own devpts. What lies at
// its path is the image's choice, so it is checked to be one.
static void make_terminal(uint32_t width, uint32_t height)
{
	struct statfs fs;
	struct stat st;
	int zero = 0;
	int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW);
	if (master < 0)
		fail(errno, "open /dev/pts/ptmx", "");
	if (fstatfs(master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC || fstat(master, &st) < 0 || st.st_rdev != makedev(5, 2))
		fail(EPERM, "/dev/pts/ptmx is not a terminal multiplexer", "");
	if (ioctl(master, TIOCSPTLCK, &zero) < 0)
		fail(errno, "unlock the terminal", "");
	int terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (terminal < 0)
		fail(errno, "open the terminal", "");
	struct winsize size = { .ws_col = width, .ws_row = height };
	if (width && height && ioctl(master, TIOCSWINSZ, &size) < 0)
		fail(errno, "size the terminal", "");
	send_terminal(master);
	for (int fd = 0; fd < 3; fd++)
		if (dup2(terminal, fd) < 0)
			fail(errno, "use the terminal", "");
	if (ioctl(0, TIOCSCTTY, 0) < 0)
		fail(errno, "control the terminal", "");
}

// own_stdio lets the user open /dev/stdout again. Files that are not ours to
// give stay as they are.
static void own_stdio(uint32_t uid)
{
	for (int fd = 0; fd < 3; fd++) {
		struct stat st;
		if (fstat(fd, &st) < 0)
			fail(errno, "look at stdio", "");
		if (st.st_uid == uid || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
			continue;
		if (fchown(fd, uid, -1) < 0 && errno != EPERM && errno != EROFS)
			fail(errno, "give stdio to the user", "");
	}
}

// label_file opens, in the host's /proc, where a security module is told the
// label of the next execution: the container's /proc is not to be trusted.
static int label_file(const char *label, const char *own, const char *shared)
{
	if (!*label)
		return -1;
	int fd = open(own, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open(shared, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fail(errno, "label the process", label);
	return fd;
}

static void set_label(int fd, const char *prefix, const char *label)
{
	char text[4096];
	if (fd < 0)
		return;
	int n = snprintf(text, sizeof text, "%s%s", prefix, label);
	if (n >= (int)sizeof text || write(fd, text, n) < 0)
		fail(errno, "label the process", label);
	close(fd);
}

static void load_seccomp(struct process *p)
{
	struct sock_fprog program = {
		.len = p->seccomp_len / sizeof(struct sock_filter),
		.filter = (struct sock_filter *)p->seccomp,
	};
	if (p->seccomp_len && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, p->seccomp_flags, &program) < 0)
		fail(errno, "load the seccomp filter", "");
}

// verify_cwd: the kernel names a directory outside of our root with a prefix
// that is no slash (CVE-2024-21626).
static void verify_cwd(void)
{
	char path[4096];
	if (syscall(SYS_getcwd, path, sizeof path) < 0 && errno != ERANGE)
		fail(errno, "working directory is outside of the container", "");
	if (path[0] != '/')
		fail(EPERM, "working directory is outside of the container", "");
}

static void become_user(struct process *p)
{
	gid_t *groups = calloc((size_t)p->group_count + 1, sizeof *groups);
	if (!groups)
		fail(ENOMEM, "set groups", "");
	for (uint32_t i = 0; i < p->group_count; i++)
		groups[i] = strtoul(p->groups[i], NULL, 10);
	// Root may go where the user may not, and the other way about on volumes
	// that squash root.
	int later = chdir(p->cwd) < 0;
	if (later && errno != EACCES && errno != EPERM)
		fail(errno, "change to working directory", p->cwd);
	if (p->flags & HAS_CAPS)
		drop_bounding_set(p->bounding);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		fail(errno, "keep capabilities", "");
	if (syscall(SYS_setgroups, p->group_count, groups) < 0)
		fail(errno, "set groups", "");
	if (syscall(SYS_setresgid, p->gid, p->gid, p->gid) < 0)
		fail(errno, "set group", "");
	if (syscall(SYS_setresuid, p->uid, p->uid, p->uid) < 0)
		fail(errno, "set user", "");
	if (later && chdir(p->cwd) < 0)
		fail(errno, "change to working directory", p->cwd);
	verify_cwd();
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
		fail(errno, "drop capabilities", "");
	if (!(p->flags & HAS_CAPS))
		return;
	if (set_capabilities(p->effective, p->permitted, p->inheritable) < 0)
		fail(errno, "set capabilities", "");
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned long cap = 0; cap < 64; cap++)
		if (p->ambient & (1ULL << cap)) // needs it inheritable; libcontainer only warns too
			prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
}

static int runnable(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode))
		return EISDIR;
	return access(path, X_OK) < 0 ? errno : 0;
}

// look_up finds the program as a shell does, in the PATH of its environment.
static const char *look_up(struct process *p)
{
	static char path[8192];
	const char *name = p->args[0], *list = NULL;
	if (strchr(name, '/')) {
		int err = runnable(name);
		if (err)
			fail(err, "exec:", name);
		return name;
	}
	for (char **e = p->env; *e; e++)
		if (strncmp(*e, "PATH=", 5) == 0)
			list = *e + 5;
	while (list) {
		size_t n = strcspn(list, ":");
		if (n > 0 && *list == '/' && snprintf(path, sizeof path, "%.*s/%s", (int)n, list, name) < (int)sizeof path && runnable(path) == 0)
			return path;
		list = list[n] ? list + n + 1 : NULL;
	}
	snprintf(path, sizeof path, "\"%.4000s\": executable file not found in $PATH", name);
	fail(ENOENT, "exec:", path);
}

static void reset_signals(void)
{
	sigset_t none;
	sigemptyset(&none);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void read_process(struct request *r, struct process *p)
{
	p->flags = request_number(r);
	p->namespaces = request_number(r);
	p->umask = request_number(r);
	p->uid = request_number(r);
	p->gid = request_number(r);
	p->keyring = request_string(r);
	p->label = request_string(r);
	p->apparmor = request_string(r);
	p->cwd = request_string(r);
	p->args = request_strings(r, NULL);
	p->env = request_strings(r, NULL);
	p->groups = request_strings(r, &p->group_count);
	p->bounding = wide(r);
	p->effective = wide(r);
	p->permitted = wide(r);
	p->inheritable = wide(r);
	p->ambient = wide(r);
	p->seccomp_flags = request_number(r);
	p->seccomp = request_bytes(r, &p->seccomp_len);
}

void exec_main(void)
{
	struct request r;
	struct process p;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	request_open(&r);
	join_cgroups(&r);
	set_limits(&r);
	uint32_t width = request_number(&r), height = request_number(&r);
	read_process(&r, &p);
	int label = label_file(p.label, "/proc/self/attr/exec", "/proc/self/attr/exec");
	int apparmor = label_file(p.apparmor, "/proc/self/attr/apparmor/exec", "/proc/self/attr/exec");
	join_namespaces(&p);
	if (p.flags & TERMINAL)
		make_terminal(width, height);
	own_stdio(p.uid);
	if (p.flags & HAS_UMASK)
		umask(p.umask);
	if (p.flags & NO_NEW_PRIVS && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		fail(errno, "set no_new_privs", "");
	set_label(label, "", p.label);
	set_label(apparmor, "exec ", p.apparmor);
	// From here on only stdio and the reply are open, and the reply closes
	// itself on success.
	fcntl(FD_REPLY, F_SETFD, FD_CLOEXEC);
	close(FD_EXE);
	if (syscall(SYS_close_range, FD_REPLY + 1, ~0U, 0) < 0)
		fail(errno, "close descriptors", "");
	reset_signals();
	// Without no_new_privs a filter needs privileges, so it comes before they
	// are dropped; with it, as late as possible.
	if (!(p.flags & NO_NEW_PRIVS))
		load_seccomp(&p);
	become_user(&p);
	const char *program = look_up(&p);
	if (p.flags & NO_NEW_PRIVS)
		load_seccomp(&p);
	execve(program, p.args, p.env);
	fail(errno, "exec:", program);
}

// Stands between berth-runtime and an OCI runtime's command: what the command
// leaves behind becomes a child of this process, which reaps none of it and so
// keeps its pid from being reused until berth-runtime knows it.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	FD_LINK = 3, // socket: gets the command's wait status; its end ends us
	FD_LOCK = 4, // locked while we live
};

static void adopt(char **command) __attribute__((noreturn));

static void set_oom_score_adj(void)
{
	const char *adj = getenv("_BERTH_OOM_SCORE_ADJ");
	int fd = adj ? open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	if (write(fd, adj, strlen(adj)) < 0)
		errno = 0; // it stays as it is
	close(fd);
	unsetenv("_BERTH_OOM_SCORE_ADJ");
}

static void adopt(char **command)
{
	int status = 0;
	pid_t pid;
	char none;
	fcntl(FD_LINK, F_SETFD, FD_CLOEXEC);
	fcntl(FD_LOCK, F_SETFD, FD_CLOEXEC);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 || (pid = fork()) < 0)
		_exit(1);
	if (pid == 0) {
		set_oom_score_adj();
		execv(command[0], command);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (send(FD_LINK, &status, sizeof status, MSG_NOSIGNAL) < 0)
		_exit(1);
	while (read(FD_LINK, &none, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

// Runs before the Go runtime. A normal start goes on at once.
__attribute__((constructor(102))) static void helper(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[0], "berth:adopt") == 0)
		adopt(argv + 1);
}

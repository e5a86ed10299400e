#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// reset_reserved gives 32 and 33 their defaults back. posix_spawn of glibc, by
// which make runs what it runs, leaves them ignored in its children, signal()
// refuses to touch them, and every container would inherit that.
static void reset_reserved(void)
{
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } def = { 0 };
	for (int sig = 32; sig < 34; sig++)
		syscall(SYS_rt_sigaction, sig, &def, NULL, sizeof def.mask);
}

// Runs before libcontainer's constructor, which has no priority, and before the
// Go runtime. A normal start goes on at once.
__attribute__((constructor(101))) static void helper(int argc, char **argv)
{
	static const char descriptor[] = "/proc/self/fd/";
	size_t n = sizeof descriptor - 1;
	reset_reserved();
	if (argc == 3 && strcmp(argv[1], "berth:env") == 0 && strncmp(argv[0], descriptor, n) == 0)
		env_main(atoi(argv[0] + n), atoi(argv[2]));
	if (argc != 1)
		return;
	if (strcmp(argv[0], "berth:exec") == 0)
		exec_main();
	if (strcmp(argv[0], "berth:pod") == 0)
		pod_main();
}

void fail(int err, const char *what, const char *detail)
{
	char message[1024];
	int n = snprintf(message, sizeof message, "%d %s%s%s", err, what, *detail ? " " : "", detail);
	if (n > (int)sizeof message - 1)
		n = sizeof message - 1;
	if (write(FD_REPLY, message, n) < 0)
		_exit(254); // nobody listens
	_exit(255);
}

void request_open(struct request *r)
{
	struct stat st;
	if (fstat(FD_REQUEST, &st) < 0 || st.st_size == 0)
		fail(errno, "read request", "");
	r->at = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, FD_REQUEST, 0);
	if (r->at == MAP_FAILED)
		fail(errno, "map request", "");
	r->end = r->at + st.st_size;
	close(FD_REQUEST);
	close(FD_EXE);
}

uint32_t request_number(struct request *r)
{
	uint32_t n;
	if (r->end - r->at < (ptrdiff_t)sizeof n)
		fail(EBADMSG, "request is cut", "");
	memcpy(&n, r->at, sizeof n);
	r->at += sizeof n;
	return n;
}

const char *request_bytes(struct request *r, uint32_t *len)
{
	uint32_t n = request_number(r);
	const char *s = r->at;
	if (r->end - r->at <= (ptrdiff_t)n)
		fail(EBADMSG, "request is cut", "");
	r->at += (size_t)n + 1;
	if (len)
		*len = n;
	return s;
}

const char *request_string(struct request *r)
{
	return request_bytes(r, NULL);
}

char **request_strings(struct request *r, uint32_t *count)
{
	uint32_t n = request_number(r);
	char **list = calloc((size_t)n + 1, sizeof *list);
	if (!list)
		fail(ENOMEM, "read request", "");
	for (uint32_t i = 0; i < n; i++)
		list[i] = (char *)request_string(r);
	if (count)
		*count = n;
	return list;
}

int put(const char *path, const char *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int err = write(fd, data, len) < 0 ? errno : 0;
	close(fd);
	return err;
}

void drop_bounding_set(uint64_t keep)
{
	for (unsigned long cap = 0; cap < 64; cap++) {
		if (keep & (1ULL << cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL) // beyond the last one of this kernel
				return;
			fail(errno, "drop capability from bounding set", "");
		}
	}
}

int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32) },
	};
	return syscall(SYS_capset, &header, data);
}

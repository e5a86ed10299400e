//go:build seccomp

// The program that Create gives to libcontainer's init takes the place of what
// libseccomp makes of the stand-in profile (ld --wrap). All else stays
// libcontainer's: the flags, and when the filter is loaded. Without a given
// program nothing is different.
#define _GNU_SOURCE
#include "given.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int __real_seccomp_export_bpf(const scmp_filter_ctx ctx, int fd);

static char *given;
static size_t given_size;

int berth_take_seccomp(int fd)
{
	struct stat st;
	size_t head = strlen(SECCOMP_MAGIC);
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_WRITE) || fstat(fd, &st) < 0 || (size_t)st.st_size <= head || st.st_size > 1 << 20)
		return 0;
	char *data = malloc(st.st_size);
	if (!data || pread(fd, data, st.st_size, 0) != st.st_size || memcmp(data, SECCOMP_MAGIC, head)) {
		free(data);
		return 0;
	}
	close(fd);
	given = data + head;
	given_size = st.st_size - head;
	return 1;
}

int __wrap_seccomp_export_bpf(const scmp_filter_ctx ctx, int fd)
{
	if (!given)
		return __real_seccomp_export_bpf(ctx, fd);
	for (size_t done = 0; done < given_size;) {
		ssize_t n = write(fd, given + done, given_size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += n;
	}
	return 0;
}

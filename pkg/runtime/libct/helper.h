// What the C helpers share. They run in a fresh execution of the program,
// single-threaded, before the Go runtime starts, and never return to it.
#ifndef BERTH_HELPER_H
#define BERTH_HELPER_H

#include <stdint.h>
#include <stddef.h>

// Descriptors that the engine passes to a helper; 0, 1 and 2 are stdio.
enum {
	FD_EXE = 3,     // the program itself
	FD_REQUEST = 4, // memory file with the request
	FD_REPLY = 5,   // pipe or socket for replies
	FD_TARGET = 6,  // exec: pidfd of the container's first process
	FD_CONSOLE = 7, // exec: socket that gets the terminal's master
};

// A request is a sequence of 32-bit numbers and of strings, each its length
// (32 bits) and its bytes with a NUL behind them.
struct request {
	const char *at, *end;
};

void request_open(struct request *r);
uint32_t request_number(struct request *r);
const char *request_bytes(struct request *r, uint32_t *len);
const char *request_string(struct request *r);
// request_strings returns a NULL-terminated array.
char **request_strings(struct request *r, uint32_t *count);

// fail replies "errno what detail" and ends the process.
void fail(int err, const char *what, const char *detail) __attribute__((noreturn));

// put writes all of data to the file at path. It returns 0 or an errno.
int put(const char *path, const char *data, size_t len);

void drop_bounding_set(uint64_t keep);
int set_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable);

void exec_main(void) __attribute__((noreturn));
void pod_main(void) __attribute__((noreturn));
void env_main(int exe, int memory) __attribute__((noreturn));

#endif

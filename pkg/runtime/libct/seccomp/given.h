// What begins a memory file with a compiled seccomp profile.
#define SECCOMP_MAGIC "berth-seccomp-1\n"

// berth_take_seccomp takes the program from fd and closes it, if that is one.
int berth_take_seccomp(int fd);

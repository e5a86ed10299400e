// square lets the first GPU square the numbers below 1024 and checks them. It finds
// the driver as every program does, by the dynamic linker.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const char kernel[] =
	".version 6.0\n"
	".target sm_52\n"
	".address_size 64\n"
	".visible .entry square(.param .u64 at) {\n"
	"	.reg .u32 %n;\n"
	"	.reg .u64 %a, %o;\n"
	"	mov.u32 %n, %tid.x;\n"
	"	ld.param.u64 %a, [at];\n"
	"	cvta.to.global.u64 %a, %a;\n"
	"	mul.wide.u32 %o, %n, 4;\n"
	"	add.u64 %a, %a, %o;\n"
	"	mul.lo.u32 %n, %n, %n;\n"
	"	st.global.u32 [%a], %n;\n"
	"	ret;\n"
	"}\n";

static void *driver;

static void *symbol(const char *name) {
	void *f = dlsym(driver, name);
	if (!f) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	return f;
}

#define CALL(name, types, ...)                                   \
	do {                                                     \
		int err = ((int(*) types)symbol(name))(__VA_ARGS__); \
		if (err) {                                       \
			fprintf(stderr, "%s: error %d\n", name, err); \
			exit(3);                                 \
		}                                                \
	} while (0)

int main(void) {
	enum { N = 1024 };
	uint32_t out[N] = {0};
	char name[128];
	int device;
	void *context, *module, *function;
	uint64_t memory;

	driver = dlopen("libcuda.so.1", RTLD_NOW);
	if (!driver) {
		fprintf(stderr, "%s\n", dlerror());
		return 2;
	}
	CALL("cuInit", (unsigned), 0);
	CALL("cuDeviceGet", (int *, int), &device, 0);
	CALL("cuDeviceGetName", (char *, int, int), name, sizeof name, device);
	CALL("cuDevicePrimaryCtxRetain", (void **, int), &context, device);
	CALL("cuCtxSetCurrent", (void *), context);
	CALL("cuModuleLoadData", (void **, const void *), &module, kernel);
	CALL("cuModuleGetFunction", (void **, void *, const char *), &function, module, "square");
	CALL("cuMemAlloc_v2", (uint64_t *, size_t), &memory, sizeof out);
	void *args[] = {&memory};
	CALL("cuLaunchKernel", (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
	     function, 1, 1, 1, N, 1, 1, 0, NULL, args, NULL);
	CALL("cuMemcpyDtoH_v2", (void *, uint64_t, size_t), out, memory, sizeof out);
	for (uint32_t i = 0; i < N; i++)
		if (out[i] != i * i) {
			fprintf(stderr, "%u squared is %u\n", i, out[i]);
			return 4;
		}
	printf("%s squares\n", name);
	return 0;
}

//go:build seccomp

package seccomp

/*
#cgo pkg-config: libseccomp
#cgo LDFLAGS: -Wl,--wrap=seccomp_export_bpf
#include "given.h"
*/
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer/configs"
	// Of these the functions below are linked to, whose names are not exported.
	_ "github.com/opencontainers/runc/libcontainer/seccomp"
	_ "github.com/opencontainers/runc/libcontainer/seccomp/patchbpf"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// libcontainer can load a filter, not hand it out. An exec has to have exactly
// the container's filter, the stub for newer system calls included, so these
// parts of libcontainer are used from here rather than written a second time.
// The version of libcontainer is pinned, and a test compares the two.

//go:linkname getAction github.com/opencontainers/runc/libcontainer/seccomp.getAction
func getAction(act configs.Action, errnoRet *uint) (libseccomp.ScmpAction, error)

//go:linkname matchCall github.com/opencontainers/runc/libcontainer/seccomp.matchCall
func matchCall(filter *libseccomp.ScmpFilter, call *configs.Syscall, defAct libseccomp.ScmpAction) error

//go:linkname setFlag github.com/opencontainers/runc/libcontainer/seccomp.setFlag
func setFlag(filter *libseccomp.ScmpFilter, flag specs.LinuxSeccompFlag) error

//go:linkname enosysPatchFilter github.com/opencontainers/runc/libcontainer/seccomp/patchbpf.enosysPatchFilter
func enosysPatchFilter(config *configs.Seccomp, filter *libseccomp.ScmpFilter) ([]unix.SockFilter, error)

//go:linkname filterFlags github.com/opencontainers/runc/libcontainer/seccomp/patchbpf.filterFlags
func filterFlags(config *configs.Seccomp, filter *libseccomp.ScmpFilter) (flags uint, noNewPrivs bool, err error)

// optimizeFrom is from how many rules on libcontainer asks for a binary tree.
const optimizeFrom = 33

// compile makes the program that libcontainer loads for this profile.
func compile(config *configs.Seccomp) (*Program, error) {
	defaultAction, err := getAction(config.DefaultAction, config.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("seccomp default action: %w", err)
	}
	filter, err := libseccomp.NewFilter(defaultAction)
	if err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	defer filter.Release()
	if err := fill(filter, config, defaultAction); err != nil {
		return nil, fmt.Errorf("make seccomp filter: %w", err)
	}
	code, err := enosysPatchFilter(config, filter)
	if err != nil {
		return nil, fmt.Errorf("export seccomp filter: %w", err)
	}
	flags, _, err := filterFlags(config, filter)
	if err != nil {
		return nil, fmt.Errorf("seccomp flags: %w", err)
	}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(code))), len(code)*int(unsafe.Sizeof(unix.SockFilter{})))
	return &Program{Flags: uint32(flags), Code: append([]byte(nil), raw...)}, nil
}

// Take takes the compiled profile that StandIn's caller gave to this init, from
// the descriptor that init gets its first extra file as. Without one it does
// nothing.
func Take(fd int) {
	for _, name := range []string{"_LIBCONTAINER_INITPIPE", "_LIBCONTAINER_CONSOLE"} {
		if os.Getenv(name) == strconv.Itoa(fd) {
			return // none was given
		}
	}
	C.berth_take_seccomp(C.int(fd))
}

// file writes the program into a memory file that nobody can change any more.
func (p *Program) file() (*os.File, error) {
	fd, err := unix.MemfdCreate("berth-seccomp", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "berth-seccomp")
	_, err = f.Write(append([]byte(C.SECCOMP_MAGIC), p.Code...))
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("give seccomp program: %w", err)
	}
	return f, nil
}

func fill(filter *libseccomp.ScmpFilter, config *configs.Seccomp, defaultAction libseccomp.ScmpAction) error {
	for _, name := range config.Architectures {
		arch, err := libseccomp.GetArchFromString(name)
		if err != nil {
			return err
		}
		if err := filter.AddArch(arch); err != nil {
			return err
		}
	}
	for _, flag := range config.Flags {
		if err := setFlag(filter, flag); err != nil {
			return err
		}
	}
	if len(config.Syscalls) >= optimizeFrom {
		_ = filter.SetOptimize(2) // slower without, not wrong
	}
	if err := filter.SetNoNewPrivsBit(false); err != nil {
		return err
	}
	for _, call := range config.Syscalls {
		if err := matchCall(filter, call, defaultAction); err != nil {
			return err
		}
	}
	return nil
}

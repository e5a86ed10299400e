package libct

/*
#cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror -O2
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// The names by which the program is executed as a helper; helper.c has the
// same.
const (
	execHelper = "berth:exec"
	podHelper  = "berth:pod"
)

// request is what a helper reads from its memory file; see helper.h.
type request struct{ data []byte }

func (r *request) number(n uint32) {
	r.data = binary.NativeEndian.AppendUint32(r.data, n)
}

func (r *request) wide(n uint64) {
	r.number(uint32(n))
	r.number(uint32(n >> 32))
}

func (r *request) string(s string) {
	r.number(uint32(len(s)))
	r.data = append(append(r.data, s...), 0)
}

func (r *request) strings(list []string) {
	r.number(uint32(len(list)))
	for _, s := range list {
		r.string(s)
	}
}

// file returns the request as a memory file, to be closed by the caller.
func (r *request) file() (*os.File, error) {
	fd, err := unix.MemfdCreate("berth-request", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // MFD_NOEXEC_SEAL is of Linux 6.3
		fd, err = unix.MemfdCreate("berth-request", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "request")
	if _, err := f.Write(r.data); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// spawn executes the program as a helper, with stdio and, from the fourth on,
// the descriptors of helper.h. The process is the caller's to reap.
func (e *Engine) spawn(helper string, stdio [3]*os.File, request, reply *os.File, more []*os.File, sys *syscall.SysProcAttr) (int, error) {
	files := make([]uintptr, 0, 8)
	for _, f := range append([]*os.File{stdio[0], stdio[1], stdio[2], e.exe, request, reply}, more...) {
		files = append(files, f.Fd())
	}
	// The path is that of the descriptor after the child has put all in place:
	// Go may overwrite the one that we have here (golang.org/issue/61751).
	return syscall.ForkExec("/proc/self/fd/3", []string{helper}, &syscall.ProcAttr{Env: []string{}, Files: files, Sys: sys})
}

// helperError turns a helper's "errno what detail" into an error. What the
// request asked for in vain is errs.Invalid, a program one of the kinds for that.
func helperError(text string) error {
	var number int
	code, what, ok := strings.Cut(text, " ")
	if _, err := fmt.Sscanf(code, "%d", &number); err != nil || !ok {
		return fmt.Errorf("helper answered %q", text)
	}
	errno := unix.Errno(number)
	if strings.HasSuffix(what, "not found in $PATH") {
		return fmt.Errorf("%s: %w", what, errs.NoProgram)
	}
	switch errno {
	case unix.ENOENT, unix.EACCES, unix.ENOTDIR, unix.EISDIR, unix.ENOEXEC, unix.ELOOP, unix.ENAMETOOLONG, unix.EPERM:
		kind := errs.Invalid
		if strings.HasPrefix(what, "exec:") {
			kind = errs.NoExecutable
			if errno == unix.ENOENT {
				kind = errs.NoProgram
			}
		}
		return fmt.Errorf("%s: %w: %w", what, errno, kind)
	case unix.EINVAL, unix.E2BIG:
		return fmt.Errorf("%s: %w: %w", what, errno, errs.Invalid)
	case unix.ESRCH, unix.ENODEV:
		return fmt.Errorf("%s: %w: %w", what, errno, errs.Conflict)
	}
	return fmt.Errorf("%s: %w", what, errno)
}

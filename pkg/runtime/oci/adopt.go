package oci

/*
#cgo CFLAGS: -std=gnu11 -Wall -Wextra -Werror -O2
*/
import "C"

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
)

// adoptHelper is the name by which the program is executed as the helper; adopt.c
// has the same.
const adoptHelper = "berth:adopt"

// adjVariable tells the helper the oom_score_adj of the command; adopt.c has the
// same.
const adjVariable = "_BERTH_OOM_SCORE_ADJ"

// adopt runs the command to its end and keeps what it leaves behind: the caller
// of release lets that go, to the nearest subreaper. Where ctx ends first, the
// command is killed. stdio is the command's, and so that of the process it makes.
// The file at lockPath is locked while the command runs.
func adopt(ctx context.Context, lockPath string, stdio [3]*os.File, command, env []string) (release func(), err error) {
	held, err := lock(ctx, lockPath, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer held.Close() // the helper's copy holds it
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	link, theirs := os.NewFile(uintptr(pair[0]), "link"), os.NewFile(uintptr(pair[1]), "link")
	pid, err := spawn(command, env, [5]*os.File{stdio[0], stdio[1], stdio[2], theirs, held})
	_ = theirs.Close()
	if err != nil {
		_ = link.Close()
		return nil, fmt.Errorf("start helper: %w", err)
	}
	release = sync.OnceFunc(func() {
		_ = link.Close()
		pidfd.Wait(pid)
	})
	// The group is the helper and the command, and not what that has made: a
	// container's processes have sessions of their own.
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-pid, unix.SIGKILL) })
	var raw [4]byte
	_, err = io.ReadFull(link, raw[:])
	if !stop() {
		release()
		return nil, ctx.Err()
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("helper ended: %w", err)
	}
	if status := syscall.WaitStatus(binary.NativeEndian.Uint32(raw[:])); status != 0 {
		release()
		return nil, failure(status)
	}
	return release, nil
}

func failure(s syscall.WaitStatus) error {
	if s.Signaled() {
		return fmt.Errorf("it was killed by signal %d", s.Signal())
	}
	return fmt.Errorf("it ended with status %d", s.ExitStatus())
}

// spawn executes this program as the helper. It has a process group of its own,
// and is the caller's to reap.
func spawn(command, env []string, files [5]*os.File) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	var fds []uintptr
	for _, f := range files {
		if f == nil {
			f = null
		}
		fds = append(fds, f.Fd())
	}
	return syscall.ForkExec("/proc/self/exe", append([]string{adoptHelper}, command...), &syscall.ProcAttr{
		Env: env, Files: fds, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
}

// lock locks the file at path, which it waits for until ctx ends. Closing it
// unlocks.
func lock(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
			continue
		case <-ctx.Done():
			err = fmt.Errorf("a command still runs: %w", ctx.Err())
		}
		break
	}
	return nil, errors.Join(err, f.Close())
}

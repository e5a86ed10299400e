package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// The first process waits at a FIFO in the container's directory, until somebody
// opens that for reading; then it writes a byte into it and executes its
// program. libcontainer's way to open the gate takes the byte out, and waits for
// ever where a worker was killed after it had done so. Here the byte stays: who
// comes later sees it, too.
const gateName = "exec.fifo"

// gateLimit bounds how long the process may take to pass the gate.
const gateLimit = 10 * time.Second

// openGate lets the first process go, and returns once it is through. The process
// is held until open has seen to it that the gate stays open although this
// worker be killed: it would end where it finds nobody at a gate that was open.
// A worker killed in between leaves it held, for the next one's Start.
func (e *Engine) openGate(ctx context.Context, c *container, open runtime.OpenGate) error {
	ctx, cancel := context.WithTimeout(ctx, gateLimit)
	defer cancel()
	path := filepath.Join(e.opts.Root, c.id, gateName)
	if c.pidfd == nil {
		return c.stopped()
	}
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("it has started: %w", errs.Conflict)
	}
	held := c.hold()
	fd, err := open(path)
	if err == nil {
		defer unix.Close(fd)
	}
	if held {
		err = errors.Join(err, c.thaw())
	}
	if err != nil {
		return err
	}
	err = c.awaitPassage(ctx, fd)
	if removeErr := os.Remove(path); !errors.Is(removeErr, os.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}

// awaitPassage waits for the byte in the FIFO, or the end of the process.
func (c *container) awaitPassage(ctx context.Context, fd int) error {
	const gate, process = 0, 1
	for ctx.Err() == nil {
		fds := []unix.PollFd{gate: {Fd: int32(fd), Events: unix.POLLIN}, process: {Fd: int32(c.pidfd.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 50); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		switch {
		case fds[gate].Revents&unix.POLLIN != 0:
			return nil
		case fds[process].Revents&unix.POLLIN != 0:
			return fmt.Errorf("its process ended before it executed the program: %w", c.stopped())
		}
	}
	return fmt.Errorf("its process does not execute the program: %w", ctx.Err())
}

// OpenGate is the plain runtime.OpenGate, for who is not killed meanwhile.
func OpenGate(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

package libct

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Signal sends sig to the first process, or to all. It is no error if there is
// nobody left to get it. SIGKILL reaches frozen processes too.
func (e *Engine) Signal(ctx context.Context, id string, sig int, all bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := e.get(id)
	if err != nil {
		return err
	}
	if all {
		return c.signalAll(unix.Signal(sig))
	}
	if c.pidfd == nil {
		return nil
	}
	err = unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.Signal(sig), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal container %s: %w", id, err)
	}
	if unix.Signal(sig) == unix.SIGKILL {
		return c.thaw() // a v1 freezer keeps even the killed
	}
	return nil
}

func (c *container) signalAll(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		if err := c.killAll(); err != nil {
			return fmt.Errorf("kill container %s: %w", c.id, err)
		}
		return nil
	}
	ct, err := c.load()
	if err != nil {
		return err
	}
	pids, err := ct.Processes()
	if err != nil {
		return fmt.Errorf("signal container %s: %w", c.id, err)
	}
	var failed error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			failed = errors.Join(failed, fmt.Errorf("signal process %d of container %s: %w", pid, c.id, err))
		}
	}
	return failed
}

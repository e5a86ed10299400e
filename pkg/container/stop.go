package container

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

const sigKill = int(unix.SIGKILL)

// killWait bounds the wait for the end of a container that was sent SIGKILL: a
// process that hangs in the kernel does not end.
const killWait = 30 * time.Second

// Stop ends a container: its stop signal, then after the grace period SIGKILL
// to all of its processes. A grace of zero kills at once. It returns once the
// container has ended, and is idempotent. The error is errs.Timeout where even
// SIGKILL does not end it, errs.NotFound for one that is not there.
func (s *Service) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := s.Get(id)
	if err != nil {
		return err
	}
	if c.Status.State == Running && grace > 0 {
		if ended, err := s.ask(ctx, c, grace); ended || err != nil {
			return err
		}
	}
	return s.kill(ctx, c)
}

// ask sends the stop signal, unless that has been done, and waits for the grace
// period. Many programs take a second signal for "now". What was sent is
// forgotten with the daemon.
func (s *Service) ask(ctx context.Context, c *Container, grace time.Duration) (ended bool, err error) {
	if c.asked.CompareAndSwap(false, true) {
		err = s.d.Runtime.Kill(ctx, runtime.KillRequest{ID: c.ID, Signal: c.stopSignal})
		if ignoreNotFound(err) != nil {
			c.asked.Store(false)
			return false, fmt.Errorf("stop container %s: %w", c.ID, err)
		}
	}
	ended, err = c.wait(ctx, grace)
	if err != nil {
		return false, fmt.Errorf("stop container %s: wait for its end: %w", c.ID, err)
	}
	return ended, nil
}

// kill sends SIGKILL to all of the container and waits for its end.
func (s *Service) kill(ctx context.Context, c *Container) error {
	select {
	case <-c.exited:
		return nil
	default:
	}
	err := s.d.Runtime.Kill(ctx, runtime.KillRequest{ID: c.ID, Signal: sigKill, All: true})
	if err != nil && ignoreNotFound(err) == nil {
		s.change(ctx, c.ID, func(st Status) Status { return st.lost(time.Now()) })
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", c.ID, err)
	}
	ended, err := c.wait(ctx, killWait)
	if err != nil {
		return fmt.Errorf("kill container %s: wait for its end: %w", c.ID, err)
	}
	if !ended {
		return fmt.Errorf("kill container %s: a process has not ended %s after SIGKILL, it may hang in the kernel: %w", c.ID, killWait, errs.Timeout)
	}
	return nil
}

// wait waits for the container's end, at most for d.
func (c *Container) wait(ctx context.Context, d time.Duration) (ended bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

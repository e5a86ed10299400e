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

// Stop ends a running container: its stop signal, then after the grace period
// SIGKILL to all of its processes. A grace of zero kills at once. It returns once
// the container has ended, and is idempotent: the signal is sent once, and later
// calls only wait. One that has not started may be started still. The error is
// errs.Timeout where even SIGKILL does not end it, errs.NotFound for one that is
// not there.
func (s *Service) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := s.Get(id)
	if err == nil && c.Status.State == Created {
		c, err = s.afterStart(ctx, c.ID)
	}
	if err != nil || c.Status.State == Created {
		return err
	}
	if c.Status.State == Running && grace > 0 {
		if ended, err := s.ask(ctx, c, grace); ended || err != nil {
			return err
		}
	}
	return s.Kill(ctx, c.ID)
}

// afterStart waits for a Start that may be under way and returns the container
// as it is then. The runtime is asked too: a Start's answer may have been lost.
func (s *Service) afterStart(ctx context.Context, id string) (*Container, error) {
	c, unlock, err := s.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if c.Status.State != Created {
		return c, nil
	}
	return s.look(ctx, id)
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

// Kill sends SIGKILL to all of a container, also of one that has not started, and
// waits for its end. Its errors are Stop's.
func (s *Service) Kill(ctx context.Context, id string) error {
	c, err := s.Get(id)
	if err != nil || c.Status.State == Exited {
		return err
	}
	err = s.d.Runtime.Kill(ctx, runtime.KillRequest{ID: c.ID, Signal: sigKill, All: true})
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

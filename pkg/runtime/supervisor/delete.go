package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// killLimit bounds the wait for a killed container's end.
const killLimit = 10 * time.Second

func (w *worker) delete(ctx context.Context, id string) error {
	return w.locked(ctx, id, func(c *container) error {
		if c.get().State != runtime.Stopped {
			if err := w.killAndWait(ctx, c); err != nil {
				return err
			}
		}
		// What is begun is finished, whoever waits for it.
		ctx := context.WithoutCancel(ctx)
		if err := w.engine.Destroy(ctx, id); err != nil {
			return err
		}
		if c.stdio != nil {
			c.stdio.Close()
		}
		w.keeper.drop(id)
		if err := errors.Join(os.RemoveAll(c.dir), forget(w.o.journal(id))); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.containers, id)
		return nil
	})
}

func (w *worker) killAndWait(ctx context.Context, c *container) error {
	if err := w.engine.Signal(ctx, c.id(), int(unix.SIGKILL), true); err != nil {
		return err
	}
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(killLimit):
		return fmt.Errorf("container %s does not end after SIGKILL: %w", c.id(), errs.Timeout)
	}
}

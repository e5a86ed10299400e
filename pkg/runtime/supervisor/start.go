package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/runtime"
)

func (w *worker) start(ctx context.Context, id string) (runtime.Container, error) {
	var k runtime.Container
	err := w.live(ctx, id, func(c *container) error {
		err := w.startLocked(ctx, c)
		k = c.get()
		return err
	})
	return k, err
}

// startLocked writes the record first, so that the process may end, and a new
// worker may find it, at any time.
func (w *worker) startLocked(ctx context.Context, c *container) error {
	err := c.update(func(r *record) error {
		if r.Container.State != runtime.Created {
			return fmt.Errorf("start container %s: it is %s: %w", r.Container.ID, r.Container.State, errs.Conflict)
		}
		r.Container.State, r.Container.StartedAt, r.Starting = runtime.Running, time.Now(), true
		return nil
	})
	if err != nil {
		return err
	}
	// The process may be let go or not, but not half: no cancellation here.
	err = stage.Run(context.WithoutCancel(ctx), "gate", func(ctx context.Context) error {
		return w.engine.Start(ctx, c.id(), func(path string) (int, error) { return w.keeper.openGate(c.id(), path) })
	})
	w.keeper.drop(c.id(), nameGate)
	if err == nil {
		return nil
	}
	return errors.Join(err, c.update(func(r *record) error {
		if r.Container.State == runtime.Running {
			r.Container.State, r.Container.StartedAt, r.Starting = runtime.Created, time.Time{}, false
		}
		return nil
	}))
}

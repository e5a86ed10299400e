package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// freeze pauses or resumes.
func (w *worker) freeze(ctx context.Context, id string, frozen bool) error {
	return w.live(ctx, id, func(c *container) error {
		err := freezeLocked(ctx, w.engine, c, frozen)
		if err == nil && frozen && ctx.Err() != nil { // nobody will resume it
			err = errors.Join(errGone, ctx.Err(), freezeLocked(context.WithoutCancel(ctx), w.engine, c, false))
		}
		return err
	})
}

func freezeLocked(ctx context.Context, e runtime.Engine, c *container, frozen bool) error {
	from, to := runtime.Paused, runtime.Running
	if frozen {
		from, to = to, from
	}
	id := c.get().ID
	if s := c.get().State; s != from {
		return fmt.Errorf("container %s is %s: %w", id, s, errs.Conflict)
	}
	if err := e.Freeze(ctx, id, frozen); err != nil {
		return err
	}
	return c.update(func(r *record) error {
		if r.Container.State == from { // it may have been killed meanwhile
			r.Container.State = to
		}
		return nil
	})
}

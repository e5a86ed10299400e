package supervisor

import (
	"context"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// freeze pauses or resumes.
func (w *worker) freeze(ctx context.Context, id string, frozen bool) error {
	from, to := runtime.Paused, runtime.Running
	if frozen {
		from, to = to, from
	}
	return w.live(ctx, id, func(c *container) error {
		if s := c.get().State; s != from {
			return fmt.Errorf("container %s is %s: %w", id, s, errs.Conflict)
		}
		if err := w.engine.Freeze(ctx, id, frozen); err != nil {
			return err
		}
		return c.update(func(r *record) error {
			if r.Container.State == from { // it may have been killed meanwhile
				r.Container.State = to
			}
			return nil
		})
	})
}

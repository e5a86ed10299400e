package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// checkpoint dumps a paused container. Its lock is held meanwhile, so that it is
// not resumed under the dump; a kill is not kept from it, and fails the dump. Where
// the caller goes away it is resumed.
func (w *worker) checkpoint(ctx context.Context, r runtime.CheckpointRequest) error {
	if r.Spec == nil || r.Spec.Process == nil || !filepath.IsAbs(r.Dir) {
		return fmt.Errorf("checkpoint container %s: it needs a spec and an absolute directory: %w", r.ID, errs.Invalid)
	}
	return w.live(ctx, r.ID, func(c *container) error {
		if s := c.get().State; s != runtime.Paused {
			return fmt.Errorf("checkpoint container %s: it is %s, not paused: %w", r.ID, s, errs.Conflict)
		}
		err := w.engine.Checkpoint(ctx, r, c.rec.Load().Stdio.FIFOs())
		if ctx.Err() == nil {
			return err
		}
		// The caller may have waited for the lock, to resume it, for as long as a
		// caller waits: a large dump takes minutes.
		err = errors.Join(err, freezeLocked(context.WithoutCancel(ctx), w.engine, c, false))
		return fmt.Errorf("checkpoint container %s: %w: %w", r.ID, errGone, errors.Join(err, ctx.Err()))
	})
}

func (w *worker) restoreDump(ctx context.Context, r runtime.RestoreRequest) (runtime.Container, error) {
	if !filepath.IsAbs(r.Dir) {
		return runtime.Container{}, fmt.Errorf("restore container %s: %q is no absolute directory: %w", r.ID, r.Dir, errs.Invalid)
	}
	return w.createFrom(ctx, r.CreateRequest, r.Dir)
}

package supervisor

import (
	"context"

	"github.com/berth-run/berth/pkg/runtime"
)

// kill is not ordered with other calls: a signal must reach a container whose
// other call hangs.
func (w *worker) kill(ctx context.Context, r runtime.KillRequest) error {
	c, err := w.find(r.ID)
	if err != nil {
		return err
	}
	if !r.All && c.get().State == runtime.Stopped {
		return nil
	}
	err = w.engine.Signal(ctx, r.ID, r.Signal, r.All)
	if err != nil && c.get().State == runtime.Stopped {
		return nil // it ended meanwhile
	}
	return err
}

func (w *worker) updateResources(ctx context.Context, r runtime.UpdateRequest) error {
	return w.live(ctx, r.ID, func(*container) error { return w.engine.Update(ctx, r) })
}

package libct

import (
	"context"
	"errors"
	"fmt"

	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/hooks"
)

// Start lets the created process execute its program. errs.Conflict unless it
// is waiting for that.
func (e *Engine) Start(ctx context.Context, id string, open runtime.OpenGate) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := e.get(id)
	if err != nil {
		return err
	}
	if err := e.openGate(ctx, c, open); err != nil {
		return fmt.Errorf("start container %s: %w", id, err)
	}
	if err := e.hooks.Of(id, c.config.Labels).Run(ctx, hooks.Poststart, c.pid); err != nil {
		return errors.Join(err, c.killAll()) // as OCI's specification demands
	}
	c.mu.Lock()
	c.fresh = nil
	c.mu.Unlock()
	return nil
}

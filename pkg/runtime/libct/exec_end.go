package libct

import (
	"context"
	"errors"

	"github.com/berth-run/berth/pkg/errs"
)

// EndExec kills an exec that an earlier worker began, with all that it started,
// and removes its cgroup. One that is not there is no error.
func (e *Engine) EndExec(ctx context.Context, id, execID string) error {
	c, err := e.get(id)
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.execs.End(ctx, execID)
}

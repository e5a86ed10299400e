package libct

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
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
	parent := c.paths.Tracking()
	if parent == "" || filepath.Base(execID) != execID {
		return nil
	}
	dir := filepath.Join(parent, execGroupPrefix+execID)
	if err := cgroup.Kill(dir); err != nil {
		return err
	}
	return cgroup.Remove(ctx, dir)
}

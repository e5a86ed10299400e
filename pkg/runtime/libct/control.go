package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/berth-run/berth/pkg/runtime/libct/criu"
)

// Freeze pauses or resumes all processes of the container. A container that is
// so already is no error.
func (e *Engine) Freeze(ctx context.Context, id string, frozen bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := e.get(id)
	if err != nil {
		return err
	}
	ct, err := c.load()
	if err != nil {
		return err
	}
	if frozen {
		err = ct.Pause()
	} else if err = awaitOrphans(ctx); err == nil {
		err = ct.Resume()
	}
	switch {
	case errors.Is(err, libcontainer.ErrNotPaused):
		return nil
	case errors.Is(err, libcontainer.ErrNotRunning):
		status, statusErr := ct.Status()
		if frozen && statusErr == nil && status == libcontainer.Paused {
			return nil
		}
		return c.stopped()
	case err != nil && frozen: // libcontainer may have frozen it before it failed
		return fmt.Errorf("freeze container %s: %w", id, errors.Join(err, c.thaw()))
	case err != nil:
		return fmt.Errorf("thaw container %s: %w", id, err)
	}
	return nil
}

// orphanLimit bounds the wait for CRIUs without a worker. One that hangs must not
// keep what it has frozen.
const orphanLimit = 20 * time.Second

func awaitOrphans(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, orphanLimit)
	defer cancel()
	if err := criu.AwaitOrphans(waiting, os.Getppid()); err != nil && waiting.Err() == nil {
		return err
	}
	return ctx.Err()
}

// OOMKills returns how many of the container's processes the kernel has killed
// for memory. It needs no living process, and with systemd not even the cgroup.
func (e *Engine) OOMKills(id string) (int, error) {
	c, err := e.get(id)
	if err != nil {
		return 0, err
	}
	if c.paths["memory"] != "" {
		return c.paths.OOMKills()
	}
	return e.kills.Of(c.paths[""])
}

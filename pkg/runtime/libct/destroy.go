package libct

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/criu"
	"github.com/berth-run/berth/pkg/runtime/libct/hooks"
)

// destroyLimit bounds Destroy where the caller's context does not.
const destroyLimit = 30 * time.Second

// Destroy kills what still runs in the container and removes its cgroups and
// state. It is idempotent. It waits for the end of what it killed, bounded by
// ctx, and reaps nothing: the first process of a PID namespace does not end
// before the caller has reaped the execs in it.
func (e *Engine) Destroy(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, destroyLimit)
	defer cancel()
	// Of a worker that was killed in a restore: libcontainer mounts the root file
	// system here, volumes and all, and it must not be removed with the directory.
	if err := criu.Detach(filepath.Join(e.opts.Root, id, "criu-root")); err != nil {
		return fmt.Errorf("destroy container %s: %w", id, err)
	}
	c, err := e.get(id)
	if errors.Is(err, errs.NotFound) {
		return e.removeHalf(ctx, id)
	}
	if err != nil {
		return err
	}
	if err := c.killAll(); err != nil {
		return fmt.Errorf("destroy container %s: %w", id, err)
	}
	if err := c.awaitEnd(ctx); err != nil {
		return fmt.Errorf("destroy container %s: %w", id, err)
	}
	if dir := c.paths.Tracking(); dir != "" {
		if err := cgroup.Remove(ctx, dir); err != nil {
			return err
		}
	}
	ct, err := c.load()
	if err == nil {
		err = ct.Destroy()
	}
	if err != nil {
		return fmt.Errorf("destroy container %s: %w", id, err)
	}
	bundle := e.hooks.Of(id, c.config.Labels)
	if err := bundle.Run(ctx, hooks.Poststop, 0); err != nil {
		slog.Warn("a hook has failed", "err", err) // what has ended is removed all the same
	}
	if err := bundle.Remove(); err != nil {
		return fmt.Errorf("destroy container %s: %w", id, err)
	}
	e.forget(c)
	return e.forgetNote(id)
}

// awaitEnd waits until the first process has ended (reaped or not).
func (c *container) awaitEnd(ctx context.Context) error {
	if c.pidfd == nil {
		return nil
	}
	if err := pidfd.AwaitEnd(ctx, int(c.pidfd.Fd())); err != nil {
		return fmt.Errorf("process %d does not end: %w", c.pid, err)
	}
	return nil
}

package runtimetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// fakeDump is the file that stands for the processes of a container.
const fakeDump = "checkpoint"

// CanCheckpoint implements runtime.Checkpoints.
func (f *Fake) CanCheckpoint(ctx context.Context) error {
	return f.begin(ctx, runtime.VerbCanCheckpoint, "")
}

// Checkpoint implements runtime.Checkpoints: it notes the container's id.
func (f *Fake) Checkpoint(ctx context.Context, r runtime.CheckpointRequest) error {
	return f.on(ctx, runtime.VerbCheckpoint, r.ID, func(c *fakeContainer) error {
		if err := expect(c, runtime.Paused); err != nil {
			return err
		}
		dir := filepath.Join(r.Dir, fakeDump)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "pages-1.img"), []byte(r.ID), 0o600)
	})
}

// Restore implements runtime.Checkpoints.
func (f *Fake) Restore(ctx context.Context, r runtime.RestoreRequest) (runtime.Container, error) {
	if err := f.begin(ctx, runtime.VerbRestore, r.ID); err != nil {
		return runtime.Container{}, err
	}
	if _, err := os.ReadFile(filepath.Join(r.Dir, fakeDump, "pages-1.img")); err != nil {
		return runtime.Container{}, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	if _, err := f.Create(ctx, r.CreateRequest); err != nil {
		return runtime.Container{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[r.ID]
	c.State, c.StartedAt = runtime.Running, time.Now()
	return c.Container, nil
}

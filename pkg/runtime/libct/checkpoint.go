package libct

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/criu"
	"github.com/berth-run/berth/pkg/runtime/libct/seccomp"
)

// dumpPrefix begins the names of what a checkpoint needs for as long as it lasts,
// among the containers' directories.
const dumpPrefix = ".dump-"

// CanCheckpoint implements runtime.EngineCheckpoints.
func (e *Engine) CanCheckpoint(ctx context.Context) error { return criu.Check(ctx) }

// Checkpoint implements runtime.EngineCheckpoints. CRIU cannot be interrupted
// without harm to what it dumps: ctx is looked at before and after.
func (e *Engine) Checkpoint(ctx context.Context, r runtime.CheckpointRequest, fifos map[string]string) error {
	if err := e.CanCheckpoint(ctx); err != nil {
		return err
	}
	c, err := e.get(r.ID)
	if err != nil {
		return err
	}
	if c.pidfd == nil {
		return c.stopped()
	}
	temp, err := os.MkdirTemp(e.opts.Root, dumpPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	view, err := e.view(c, r.Spec, temp, filepath.Join(r.Dir, criu.ImagesDir), fifos)
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", r.ID, err)
	}
	err = view.Checkpoint(&libcontainer.CriuOpts{
		ImagesDirectory: filepath.Join(r.Dir, criu.ImagesDir), WorkDirectory: r.Dir,
		LeaveRunning: true, TcpEstablished: true, FileLocks: true, StatusFd: -1,
	})
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", r.ID, criu.Explain(err, filepath.Join(r.Dir, criu.DumpLog)))
	}
	return ctx.Err()
}

// view returns libcontainer's form of a running container as if libcontainer had
// made all of its mounts, of which CRIU must know. Its state is a copy below temp.
func (e *Engine) view(c *container, spec *specs.Spec, temp, images string, fifos map[string]string) (*libcontainer.Container, error) {
	ct, err := c.load()
	if err != nil {
		return nil, err
	}
	state, err := ct.State()
	if err != nil {
		return nil, err
	}
	whole, err := e.whole(c.id, spec, spec.Process)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	if err := dumpable(whole); err != nil {
		return nil, err
	}
	pids, err := ct.Processes()
	if err != nil {
		return nil, err
	}
	external, err := criu.Streams(images, pids, fifos)
	if err == nil {
		whole.Labels, err = criu.Configure(whole.Labels, filepath.Join(temp, "criu.conf"), external)
	}
	if err != nil {
		return nil, err
	}
	state.Config = *whole
	data, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(temp, c.id)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "state.json"), data, 0o600)); err != nil {
		return nil, err
	}
	return libcontainer.Load(temp, c.id)
}

// dumpable refuses what CRIU cannot restore in a pod.
func dumpable(c *configs.Config) error {
	if c.Namespaces.Contains(configs.NEWUSER) {
		return fmt.Errorf("checkpoint of a container in a user namespace: %w", errs.Unsupported)
	}
	if seccomp.Asks(c.Seccomp) { // CRIU restores the filter without its listener
		return fmt.Errorf("checkpoint of a container with a seccomp agent: %w", errs.Unsupported)
	}
	return nil
}

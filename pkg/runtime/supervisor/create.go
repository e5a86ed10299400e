package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/stdio"
)

func (w *worker) create(ctx context.Context, r runtime.CreateRequest) (runtime.Container, error) {
	return w.createFrom(ctx, r, "")
}

// createFrom makes a container that waits, or one that goes on from a dump.
func (w *worker) createFrom(ctx context.Context, r runtime.CreateRequest, dump string) (runtime.Container, error) {
	if err := checkCreate(&r); err != nil {
		return runtime.Container{}, err
	}
	unlock, err := w.locks.Lock(ctx, r.ID)
	if err != nil {
		return runtime.Container{}, err
	}
	defer unlock()
	if _, err := w.find(r.ID); err == nil {
		return runtime.Container{}, fmt.Errorf("container %s: %w", r.ID, errs.Exists)
	}
	var undone undo.Stack
	c, err := w.make(ctx, &r, dump, &undone)
	if err == nil && ctx.Err() != nil {
		// The caller will never know of it, and will ask again.
		err = fmt.Errorf("create container %s: %w: %w", r.ID, errGone, ctx.Err())
	}
	if err != nil {
		return runtime.Container{}, errors.Join(err, undone.Run(ctx))
	}
	undone.Discard()
	w.mu.Lock()
	w.containers[r.ID] = c
	w.mu.Unlock()
	w.watch(c)
	return c.get(), nil
}

func checkCreate(r *runtime.CreateRequest) error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	if r.Spec == nil || r.Spec.Process == nil || r.Spec.Root == nil {
		return fmt.Errorf("container %s: spec without process or root: %w", r.ID, errs.Invalid)
	}
	if r.LogPath != "" && !filepath.IsAbs(r.LogPath) {
		return fmt.Errorf("container %s: log path %q is relative: %w", r.ID, r.LogPath, errs.Invalid)
	}
	setEnv(r.Spec.Process, r.Env)
	if r.Spec.Process.OOMScoreAdj == nil {
		r.Spec.Process.OOMScoreAdj = new(int) // or it would be as protected as we are
	}
	return nil
}

// sharesPID reports whether the container's processes are in a PID namespace of
// others: the host's, the pod's or a target's.
func sharesPID(spec *specs.Spec) bool {
	return spec.Linux == nil || !slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.PIDNamespace && ns.Path == ""
	})
}

// setEnv puts an environment that came as bytes in its place.
func setEnv(p *specs.Process, raw [][]byte) {
	if raw == nil {
		return
	}
	p.Env = make([]string, len(raw))
	for i, kv := range raw {
		p.Env[i] = string(kv)
	}
}

// make makes directory, stdio, process and record, in this order, and pushes
// what undoes each.
func (w *worker) make(ctx context.Context, r *runtime.CreateRequest, dump string, undone *undo.Stack) (*container, error) {
	dir := filepath.Join(w.o.containers(), r.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	undone.Push(func(context.Context) error { return os.RemoveAll(dir) })
	cfg := stdio.Config{ID: r.ID, Dir: dir, LogPath: r.LogPath, Stdin: r.Stdin, StdinOnce: r.StdinOnce, Terminal: r.Spec.Process.Terminal}
	io, err := w.pump.Prepare(cfg)
	if err != nil {
		return nil, err
	}
	undone.Push(func(context.Context) error { io.Close(); return nil })
	p, err := w.process(ctx, r, dump, io.Child())
	if p.PIDFD != nil {
		undone.Push(func(ctx context.Context) error { return w.discard(ctx, r.ID, p) })
	}
	if err != nil {
		return nil, err
	}
	since, err := pidfd.Begun(p.PID)
	if err == nil {
		err = io.Begin()
	}
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", r.ID, err)
	}
	c := &container{dir: dir, stdio: io, exited: make(chan struct{})}
	c.own(p.PIDFD)
	c.rec.Store(&record{
		Version:   recordVersion,
		Begun:     since,
		SharedPID: sharesPID(r.Spec),
		Stdio:     cfg,
		Container: runtime.Container{ID: r.ID, PodID: r.PodID, State: runtime.Created, PID: p.PID, CreatedAt: time.Now()},
	})
	if dump != "" {
		k := &c.rec.Load().Container // which nobody else has yet
		k.State, k.StartedAt = runtime.Running, k.CreatedAt
	}
	undone.Push(func(context.Context) error { w.keeper.drop(r.ID); return nil })
	w.keep(c)
	settle(p)
	return c, c.update(func(*record) error { return nil })
}

// createBy lets the built-in engine or a command make the process.
func createBy(ctx context.Context, e runtime.Engine, r *runtime.CreateRequest, io runtime.ProcessIO) (runtime.Process, error) {
	if r.Command == nil {
		return e.Create(ctx, r.ID, r.Spec, io)
	}
	commands, ok := e.(runtime.CommandEngine)
	if !ok {
		return runtime.Process{}, fmt.Errorf("container %s by %s: %w", r.ID, r.Command.Path, errs.Unsupported)
	}
	return commands.CreateBy(ctx, *r.Command, r.ID, r.Spec, io)
}

// settle hands a process that is not our child over to the anchor, who has been
// told of it.
func settle(p runtime.Process) {
	if p.Settle != nil {
		p.Settle()
	}
}

// process makes the first process, or has it go on from the dump.
func (w *worker) process(ctx context.Context, r *runtime.CreateRequest, dump string, child stdio.Child) (p runtime.Process, err error) {
	io := processIO(child, r.Spec.Process.ConsoleSize)
	err = stage.Run(ctx, "init", func(ctx context.Context) (err error) {
		if dump == "" {
			p, err = createBy(ctx, w.engine, r, io)
		} else {
			p, err = w.engine.Restore(ctx, r.ID, r.Spec, io, dump)
		}
		return err
	})
	return p, err
}

func processIO(c stdio.Child, size *specs.Box) runtime.ProcessIO {
	p := runtime.ProcessIO{Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, Console: c.Console}
	if size != nil {
		p.Width, p.Height = uint16(size.Width), uint16(size.Height)
	}
	return p
}

// discard ends a process that no record names.
func (w *worker) discard(ctx context.Context, id string, p runtime.Process) error {
	err := w.engine.Destroy(ctx, id)
	settle(p)
	fd := int(p.PIDFD.Fd())
	exitCode(fd, "", p.PID, 0) // only to wait for it
	pidfd.Reap(fd)
	return errors.Join(err, p.PIDFD.Close())
}

// keep gives the anchor copies of what must outlive this worker.
func (w *worker) keep(c *container) {
	rec := c.rec.Load()
	fds := c.stdio.FDs()
	if c.pidfd >= 0 {
		fds[namePidfd] = c.pidfd
	}
	w.keeper.put(&entry{ID: rec.Container.ID, PID: rec.Container.PID, Begun: rec.Begun, FDs: fds})
}

// Package oci has containers made by OCI runtimes that are commands: crun, runc,
// youki. It stands before the built-in engine, which goes on to make pods and all
// containers that name no command, and finds out by id who made a container.
//
// It owns the calls of those commands, their bundles, and the way by which
// processes that a command leaves behind come to be watched:
//
//	worker ── helper (adopt.c) ── command: create or exec ── process
//	            │ is a subreaper: the command has ended, and the process is its
//	            │ child, which it does not reap
//	worker: knows pid, pidfd and beginning, and tells the anchor
//	worker: Process.Settle ends the helper; the anchor, a subreaper too, inherits
//	        the process, and journals its end
//
// It refuses to know of logs, clients and exit records, and uses of the commands
// only what all of them have. What they must not be needed for is done without
// them: to kill, to look for memory kills, to remove what an uninstalled one left.
//
// On disk, under the directory of the built-in engine: .oci/ID with the bundle
// (config.json), note.json, a lock that is held while a process is being made, and
// what is passed to commands; .oci/.sockets for terminals. The state of a command
// is in the directory that its runtime.Command names.
//
// Locks: Engine.mu guards the map of containers and container.mu what is known of
// one, and neither is held while a command runs. There are no long-lived
// goroutines.
package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/limits"
)

// Options says where and how the engine works.
type Options struct {
	// Root is the built-in engine's directory.
	Root string
	// SystemdCgroup makes cgroups through systemd instead of the file system.
	SystemdCgroup bool
}

// Engine implements runtime.CommandEngine. What holds for concurrent calls of the
// built-in engine holds here.
type Engine struct {
	runtime.Engine
	dir     string
	sockets string
	driver  cgroup.Driver
	limits  limits.Limits

	mu         sync.Mutex
	containers map[string]*container
}

var _ runtime.CommandEngine = (*Engine)(nil)

// New opens the engine on what an earlier one has left, before the built-in one.
func New(builtin runtime.Engine, o Options) (*Engine, error) {
	e := &Engine{
		Engine: builtin, dir: filepath.Join(o.Root, ".oci"), driver: cgroup.Driver{Systemd: o.SystemdCgroup}, limits: limits.Probe(),
		containers: map[string]*container{},
	}
	e.sockets = filepath.Join(e.dir, ".sockets")
	if err := os.RemoveAll(e.sockets); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.sockets, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(e.dir)
	if err != nil {
		return nil, err
	}
	for _, d := range entries {
		if id := d.Name(); !statefile.Leftover(id) && d.IsDir() && id[0] != '.' {
			e.containers[id] = e.load(id)
		}
	}
	return e, nil
}

func (e *Engine) load(id string) *container {
	c := e.newContainer(id)
	_ = statefile.Sweep(c.dir) // goes with the directory at the latest
	if err := statefile.Read(c.path(noteName), &c.note); err != nil {
		if !errors.Is(err, os.ErrNotExist) { // else no command has run yet
			slog.Error("container's command is not known", "container", id, "err", err)
		}
		c.note = note{}
		return c
	}
	if err := c.open(); err != nil {
		slog.Error("container's process cannot be opened", "container", id, "err", err)
	}
	return c
}

// find returns a container that a command made, or nil.
func (e *Engine) find(id string) *container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[id]
}

// Limits names what this process may not do for containers.
func (e *Engine) Limits() []string { return e.limits.Words() }

// Start lets the created process execute its program. A command opens the gate
// itself.
func (e *Engine) Start(ctx context.Context, id string, open runtime.OpenGate) error {
	if c := e.find(id); c != nil {
		return c.start(ctx)
	}
	return e.Engine.Start(ctx, id, open)
}

// Signal sends sig to the first process, or to all.
func (e *Engine) Signal(ctx context.Context, id string, sig int, all bool) error {
	if c := e.find(id); c != nil {
		return c.signal(ctx, sig, all)
	}
	return e.Engine.Signal(ctx, id, sig, all)
}

// Update changes the resources that r names.
func (e *Engine) Update(ctx context.Context, r runtime.UpdateRequest) error {
	c := e.find(r.ID)
	if c == nil {
		return e.Engine.Update(ctx, r)
	}
	if r.OOMScoreAdj != nil {
		adj := e.limits.OOMScoreAdj(*r.OOMScoreAdj)
		r.OOMScoreAdj = &adj
	}
	return c.update(ctx, r)
}

// Freeze pauses or resumes all processes of the container.
func (e *Engine) Freeze(ctx context.Context, id string, frozen bool) error {
	if c := e.find(id); c != nil {
		return c.freeze(ctx, frozen)
	}
	return e.Engine.Freeze(ctx, id, frozen)
}

// OOMKills returns how many of its processes the kernel has killed for memory.
func (e *Engine) OOMKills(id string) (int, error) {
	if c := e.find(id); c != nil {
		return c.paths.OOMKills()
	}
	return e.Engine.OOMKills(id)
}

// Exec starts one more process in the container.
func (e *Engine) Exec(ctx context.Context, id, execID string, p *specs.Process, io runtime.ProcessIO) (runtime.ExecProcess, error) {
	c := e.find(id)
	if c == nil {
		return e.Engine.Exec(ctx, id, execID, p, io)
	}
	p, err := e.process(p, io)
	if err != nil {
		return runtime.ExecProcess{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return c.exec(ctx, execID, p, io)
}

// EndExec kills and forgets an exec that an earlier worker began.
func (e *Engine) EndExec(ctx context.Context, id, execID string) error {
	if c := e.find(id); c != nil {
		return c.endExec(ctx, execID)
	}
	return e.Engine.EndExec(ctx, id, execID)
}

// Destroy kills what still runs and removes all that is left of the container.
func (e *Engine) Destroy(ctx context.Context, id string) error {
	c := e.find(id)
	if c == nil {
		return e.Engine.Destroy(ctx, id)
	}
	if err := e.destroy(ctx, c); err != nil {
		return err
	}
	e.mu.Lock()
	delete(e.containers, id)
	e.mu.Unlock()
	return nil
}

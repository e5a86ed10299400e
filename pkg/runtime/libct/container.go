package libct

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/seccomp"
)

// container is what the engine knows of one container. All of it can be read
// again from libcontainer's state, which load does after a restart.
type container struct {
	id     string
	root   string         // of libcontainer's state
	config configs.Config // what execs need of it
	paths  cgroup.Paths
	pid    int
	// pidfd is the first process's; nil where it had ended before we looked.
	pidfd *os.File

	seccomp *seccomp.Programs // the engine's
	execs   cgroup.Subs

	mu sync.Mutex
	// fresh is libcontainer's own form, from Create until Start. It is large,
	// and seldom needed later: load reads it again.
	fresh *libcontainer.Container
}

// get returns the container of that id, loading its state if an earlier worker
// made it. errs.NotFound where there is none.
func (e *Engine) get(id string) (*container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.containers[id]; c != nil {
		return c, nil
	}
	ct, err := libcontainer.Load(e.opts.Root, id)
	if errors.Is(err, libcontainer.ErrNotExist) || errors.Is(err, libcontainer.ErrInvalidID) {
		return nil, fmt.Errorf("container %s: %w", id, errs.NotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("load container %s: %w", id, err)
	}
	c, err := e.newContainer(id, ct)
	if err != nil {
		return nil, err
	}
	e.containers[id] = c
	return c, nil
}

// newContainer wraps a container whose first process, if it lives, nobody can
// have replaced: a child not yet reaped, or checked by its start time.
func (e *Engine) newContainer(id string, ct *libcontainer.Container) (*container, error) {
	state, err := ct.State()
	if err != nil {
		return nil, fmt.Errorf("state of container %s: %w", id, err)
	}
	c := &container{id: id, root: e.opts.Root, config: slim(ct.Config()), paths: state.CgroupPaths, pid: state.InitProcessPid, seccomp: e.seccomp}
	c.execs.Parent = c.paths.Tracking()
	if e.opts.SystemdCgroup && c.paths["memory"] == "" {
		e.kills.Add(c.paths[""])
	}
	fd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return c, nil // it has ended: every verb says so by itself
	}
	c.pidfd = os.NewFile(uintptr(fd), "pidfd")
	if status, err := ct.Status(); err != nil || status == libcontainer.Stopped {
		_ = c.pidfd.Close() // the pid may be somebody else's by now
		c.pidfd = nil
	}
	return c, nil
}

// slim copies what execs need of a configuration, which is a small part of it.
func slim(c configs.Config) configs.Config {
	return configs.Config{
		Namespaces: c.Namespaces, Umask: c.Umask, OomScoreAdj: c.OomScoreAdj, Rlimits: c.Rlimits, NoNewKeyring: c.NoNewKeyring,
		Labels: c.Labels, Seccomp: c.Seccomp, Scheduler: c.Scheduler, IOPriority: c.IOPriority, ExecCPUAffinity: c.ExecCPUAffinity,
		Personality: c.Personality, MemoryPolicy: c.MemoryPolicy, IntelRdt: c.IntelRdt,
	}
}

// load returns libcontainer's form of the container.
func (c *container) load() (*libcontainer.Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fresh != nil {
		return c.fresh, nil
	}
	ct, err := libcontainer.Load(c.root, c.id)
	if err != nil {
		return nil, fmt.Errorf("load container %s: %w", c.id, err)
	}
	return ct, nil
}

// forget drops what the engine keeps in memory of a container.
func (e *Engine) forget(c *container) {
	e.mu.Lock()
	delete(e.containers, c.id)
	e.mu.Unlock()
	e.kills.Drop(c.paths[""])
	if c.pidfd != nil {
		_ = c.pidfd.Close()
	}
}

// stopped is the error of verbs that need a first process that runs.
func (c *container) stopped() error {
	return fmt.Errorf("container %s has stopped: %w", c.id, errs.Conflict)
}

package libct

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"

	"github.com/berth-run/berth/pkg/errs"
)

// makePodCgroup makes the pod's cgroup in every hierarchy.
func (e *Engine) makePodCgroup(parent string) error {
	if parent == "" {
		return nil
	}
	m, err := e.podCgroup(parent)
	if err != nil {
		return err
	}
	if err := m.Apply(-1); err != nil { // -1: nobody joins
		return fmt.Errorf("make cgroup %s: %w", parent, err)
	}
	return nil
}

func (e *Engine) removePodCgroup(ctx context.Context, parent string) error {
	if parent == "" {
		return nil
	}
	m, err := e.podCgroup(parent)
	if err != nil {
		return err
	}
	return removeAll(ctx, m)
}

// podCgroup returns the manager of the pod's cgroup: a path, or with systemd
// the name of a slice.
func (e *Engine) podCgroup(parent string) (cgroups.Manager, error) {
	if !e.opts.SystemdCgroup {
		return cgroupAt(parent)
	}
	name := filepath.Base(parent)
	if !strings.HasSuffix(name, ".slice") {
		return nil, fmt.Errorf("cgroup parent %q is not a slice: %w", parent, errs.Invalid)
	}
	above := "-.slice"
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		above = name[:i] + ".slice"
	}
	return manager.New(&cgroups.Cgroup{Systemd: true, Parent: above, Name: name, Resources: &cgroups.Resources{}})
}

// joinInitCgroup puts the pod's PID 1 into its cgroup.
func (e *Engine) joinInitCgroup(path string, pid int) error {
	m, err := e.initCgroup(path)
	if err != nil {
		return err
	}
	if err := m.Apply(pid); err != nil {
		return fmt.Errorf("join cgroup %s: %w", path, err)
	}
	return nil
}

// removeInitCgroup ends who is in it, too.
func (e *Engine) removeInitCgroup(ctx context.Context, path string) error {
	m, err := e.initCgroup(path)
	if err != nil {
		return err
	}
	return endCgroups(ctx, m)
}

// endCgroups kills all processes of a cgroup and removes it.
func endCgroups(ctx context.Context, m cgroups.Manager) error {
	if dir := cgroupPaths(m.GetPaths()).tracking(); dir != "" {
		if err := killCgroup(dir); err != nil {
			return err
		}
	}
	return removeAll(ctx, m)
}

// initCgroup returns the manager of a cgroup in the form of OCI's cgroupsPath.
func (e *Engine) initCgroup(path string) (cgroups.Manager, error) {
	if !e.opts.SystemdCgroup {
		return cgroupAt(path)
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("cgroup %q is not slice:prefix:name: %w", path, errs.Invalid)
	}
	return manager.New(&cgroups.Cgroup{Systemd: true, Parent: parts[0], ScopePrefix: parts[1], Name: parts[2], Resources: &cgroups.Resources{}})
}

func cgroupAt(path string) (cgroups.Manager, error) {
	clean := filepath.Join("/", path)
	if clean == "/" {
		return nil, fmt.Errorf("cgroup %q: %w", path, errs.Invalid)
	}
	return manager.New(&cgroups.Cgroup{Path: clean, Resources: &cgroups.Resources{}})
}

// removeAll removes a cgroup from every hierarchy. What was killed may need a
// moment to leave it.
func removeAll(ctx context.Context, m cgroups.Manager) error {
	for _, dir := range m.GetPaths() {
		if err := removeCgroup(ctx, dir); err != nil {
			return err
		}
	}
	return m.Destroy() // tells systemd, too
}

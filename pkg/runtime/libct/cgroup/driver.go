package cgroup

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"

	"github.com/berth-run/berth/pkg/errs"
)

// Driver makes the cgroups of pods.
type Driver struct {
	// Systemd makes them through systemd instead of the file system.
	Systemd bool
}

// MakePod makes the pod's cgroup in every hierarchy.
func (d Driver) MakePod(parent string) error {
	if parent == "" {
		return nil
	}
	m, err := d.pod(parent)
	if err != nil {
		return err
	}
	if err := m.Apply(-1); err != nil { // -1: nobody joins
		return fmt.Errorf("make cgroup %s: %w", parent, err)
	}
	return nil
}

// RemovePod ends who is in the pod's cgroup or below it, and removes it. It is
// idempotent.
func (d Driver) RemovePod(ctx context.Context, parent string) error {
	if parent == "" {
		return nil
	}
	m, err := d.pod(parent)
	if err != nil {
		return err
	}
	return End(ctx, m)
}

// pod returns the manager of the pod's cgroup: a path, or with systemd
// the name of a slice.
func (d Driver) pod(parent string) (cgroups.Manager, error) {
	if !d.Systemd {
		return at(parent)
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

// JoinInit puts the pod's PID 1 into its cgroup.
func (d Driver) JoinInit(path string, pid int) error {
	m, err := d.init(path)
	if err != nil {
		return err
	}
	if err := m.Apply(pid); err != nil {
		return fmt.Errorf("join cgroup %s: %w", path, err)
	}
	return nil
}

// RemoveInit ends who is in it, too.
func (d Driver) RemoveInit(ctx context.Context, path string) error {
	m, err := d.init(path)
	if err != nil {
		return err
	}
	return End(ctx, m)
}

// Paths returns where a cgroup is, by OCI's cgroupsPath.
func (d Driver) Paths(path string) (Paths, error) {
	m, err := d.init(path)
	if err != nil {
		return nil, err
	}
	return m.GetPaths(), nil
}

// End kills all processes of a cgroup and removes it.
func End(ctx context.Context, m cgroups.Manager) error {
	if dir := Paths(m.GetPaths()).Tracking(); dir != "" {
		if err := Kill(dir); err != nil {
			return err
		}
	}
	return removeAll(ctx, m)
}

// init returns the manager of a cgroup in the form of OCI's cgroupsPath.
func (d Driver) init(path string) (cgroups.Manager, error) {
	if !d.Systemd {
		return at(path)
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("cgroup %q is not slice:prefix:name: %w", path, errs.Invalid)
	}
	return manager.New(&cgroups.Cgroup{Systemd: true, Parent: parts[0], ScopePrefix: parts[1], Name: parts[2], Resources: &cgroups.Resources{}})
}

func at(path string) (cgroups.Manager, error) {
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
		if err := Remove(ctx, dir); err != nil {
			return err
		}
	}
	return m.Destroy() // tells systemd, too
}

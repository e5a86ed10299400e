package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// notesDir lies among the containers' directories; no id begins with a dot. It
// has a note of the cgroup of each container, written before the cgroup is
// made: libcontainer writes its state later, and a worker may be killed in
// between.
const notesDir = ".cgroups"

func (e *Engine) notePath(id string) (string, error) {
	if id == "" || filepath.Base(id) != id || id == "." || id == ".." {
		return "", fmt.Errorf("container %q: %w", id, errs.Invalid)
	}
	return filepath.Join(e.opts.Root, notesDir, id), nil
}

func (e *Engine) note(id string, c *cgroups.Cgroup) error {
	path, err := e.notePath(id)
	if err != nil {
		return err
	}
	where := &cgroups.Cgroup{Name: c.Name, Parent: c.Parent, Path: c.Path, ScopePrefix: c.ScopePrefix, Systemd: c.Systemd, Rootless: c.Rootless}
	return statefile.Write(path, where)
}

func (e *Engine) forgetNote(id string) error {
	path, err := e.notePath(id)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// removeHalf removes what a Create that was killed before libcontainer wrote its
// state has left of a container.
func (e *Engine) removeHalf(ctx context.Context, id string) error {
	path, err := e.notePath(id)
	if err != nil {
		return err
	}
	if err := e.hooks.Remove(id); err != nil {
		return err
	}
	where := &cgroups.Cgroup{}
	err = statefile.Read(path, where)
	if errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(filepath.Join(e.opts.Root, id))
	}
	if err == nil {
		where.Resources = &cgroups.Resources{}
		var m cgroups.Manager
		if m, err = manager.New(where); err == nil {
			err = cgroup.End(ctx, m)
		}
	}
	if err != nil {
		return fmt.Errorf("remove what is left of container %s: %w", id, err)
	}
	return errors.Join(os.RemoveAll(filepath.Join(e.opts.Root, id)), e.forgetNote(id))
}

package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runc/libcontainer"

	"github.com/berth-run/berth/pkg/errs"
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
	} else {
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
	case err != nil:
		return fmt.Errorf("freeze container %s: %w", id, err)
	}
	return nil
}

// OOMKills returns how many of the container's processes the kernel has killed
// for memory. It needs no living process, only the cgroup.
func (e *Engine) OOMKills(id string) (int, error) {
	c, err := e.get(id)
	if err != nil {
		return 0, err
	}
	dir, file := c.paths["memory"], "memory.oom_control"
	if dir == "" {
		dir, file = c.paths[""], "memory.events"
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("memory cgroup of container %s: %w", id, errs.NotFound)
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, nil // Linux before 4.13 does not count
}

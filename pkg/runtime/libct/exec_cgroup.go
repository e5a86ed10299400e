package libct

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// execGroup is the sub-cgroup of one exec. It exists to name the processes of
// the exec, and enables no controllers: they are accounted to the container,
// and v2's rule against processes in inner cgroups does not apply.
type execGroup struct {
	path    string
	unified bool // v2, whose cgroups a process can be born in
}

const execGroupPrefix = "exec-"

func (c *container) makeExecGroup(execID string) (execGroup, error) {
	if execID == "" || strings.ContainsAny(execID, "/\x00") || len(execID) > 128 {
		return execGroup{}, fmt.Errorf("exec id %q: %w", execID, errs.Invalid)
	}
	parent := c.paths.Tracking()
	if parent == "" {
		return execGroup{}, fmt.Errorf("no cgroup hierarchy to track processes in: %w", errs.Unsupported)
	}
	g := execGroup{path: filepath.Join(parent, execGroupPrefix+execID), unified: c.paths[""] != ""}
	err := os.Mkdir(g.path, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return execGroup{}, fmt.Errorf("exec %s: %w", execID, errs.Exists)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
		return execGroup{}, c.stopped()
	}
	return g, err
}

// releaseExecGroup removes the exec's cgroup. Processes that it left behind in
// the background live on; their cgroup is removed by a later release or by
// Destroy.
func (c *container) releaseExecGroup(g execGroup) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var still []string
	var failed error
	for _, dir := range append(c.busy, g.path) {
		switch err := unix.Rmdir(dir); err {
		case nil, unix.ENOENT:
		case unix.EBUSY:
			still = append(still, dir)
		default:
			failed = fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	c.busy = still
	return failed
}

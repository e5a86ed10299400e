package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

const subPrefix = "exec-"

// Subs are the sub-cgroups of a container's execs, in Parent. They exist to name
// the processes of an exec, and enable no controllers: those are accounted to the
// container, and v2's rule against processes in inner cgroups does not apply.
type Subs struct {
	// Parent is a cgroup in the hierarchy that tracks; empty where there is none.
	Parent string

	mu   sync.Mutex
	busy []string // of execs that left processes behind
}

// SubName returns the name of an exec's cgroup below that of the container.
func SubName(execID string) string { return subPrefix + execID }

// Make makes the cgroup of an exec and returns its path. errs.Conflict where that
// of the container is gone.
func (s *Subs) Make(execID string) (string, error) {
	if execID == "" || strings.ContainsAny(execID, "/\x00") || len(execID) > 128 {
		return "", fmt.Errorf("exec id %q: %w", execID, errs.Invalid)
	}
	if s.Parent == "" {
		return "", fmt.Errorf("no cgroup hierarchy to track processes in: %w", errs.Unsupported)
	}
	path := filepath.Join(s.Parent, SubName(execID))
	err := os.Mkdir(path, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("exec %s: %w", execID, errs.Exists)
	case Gone(err):
		return "", fmt.Errorf("its cgroup is gone: it has stopped: %w", errs.Conflict)
	}
	return path, err
}

// Release removes the cgroup of an exec. Processes that it left behind in the
// background live on; their cgroup is removed by a later release or with the
// container.
func (s *Subs) Release(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var still []string
	var failed error
	for _, dir := range append(s.busy, path) {
		switch err := unix.Rmdir(dir); err {
		case nil, unix.ENOENT:
		case unix.EBUSY:
			still = append(still, dir)
		default:
			failed = fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	s.busy = still
	return failed
}

// End kills what is in an exec's cgroup and removes it. One that is not there is
// no error.
func (s *Subs) End(ctx context.Context, execID string) error {
	if s.Parent == "" || filepath.Base(execID) != execID {
		return nil
	}
	dir := filepath.Join(s.Parent, SubName(execID))
	if err := Kill(dir); err != nil {
		return err
	}
	return Remove(ctx, dir)
}

// Processes returns who is in a cgroup and in those below it. One that is gone has
// nobody.
func Processes(dir string) ([]int, error) {
	pids, err := cgroups.GetAllPids(dir)
	if Gone(err) {
		return nil, nil
	}
	return pids, err
}

// Join puts a process into a cgroup. unix.ESRCH says that it has ended.
func Join(dir string, pid int) error {
	return Write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
}

// Package cgroup makes, ends and removes cgroups, v1 and v2, through systemd or in
// the file system. What belongs to one container's limits is libcontainer's.
//
// It keeps no state. Removing waits, bounded by the context, for processes that
// have been killed to be gone.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// Paths are a container's cgroups: by controller in v1, "" is the v2
// hierarchy, which on a hybrid host has no controllers but can kill.
type Paths map[string]string

// Tracking returns the hierarchy in which execs get sub-cgroups of their own:
// v2 where there is one, else v1's freezer.
func (p Paths) Tracking() string {
	if unified := p[""]; unified != "" {
		return unified
	}
	return p["freezer"]
}

// killTries bounds how often processes of a cgroup that cannot kill are hunted.
const killTries = 50

// Kill ends every process of the cgroup and of those below it, and
// nothing else. A cgroup that is gone has nothing to kill.
func Kill(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// Linux before 5.14, or v1: signal until nobody is left. A frozen v1 cgroup
	// cannot fork, so that the first round gets them all there.
	freezer := filepath.Join(dir, "freezer.state")
	for range killTries {
		_ = os.WriteFile(freezer, []byte("FROZEN"), 0) // only v1's freezer has it
		pids, err := cgroups.GetAllPids(dir)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone: the next round tells
		}
		_ = os.WriteFile(freezer, []byte("THAWED"), 0)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(pids) == 0 {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("processes of %s do not end", dir)
}

// Remove removes a cgroup and those below it. Processes that have been
// killed may need a moment to be gone.
func Remove(ctx context.Context, dir string) error {
	wait := time.Millisecond
	for {
		err := cgroups.RemovePath(dir)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		case <-time.After(wait):
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
}

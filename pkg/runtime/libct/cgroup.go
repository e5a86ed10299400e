package libct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// cgroupPaths are a container's cgroups: by controller in v1, "" is the v2
// hierarchy, which on a hybrid host has no controllers but can kill.
type cgroupPaths map[string]string

// tracking returns the hierarchy in which execs get sub-cgroups of their own:
// v2 where there is one, else v1's freezer.
func (p cgroupPaths) tracking() string {
	if unified := p[""]; unified != "" {
		return unified
	}
	return p["freezer"]
}

// killTries bounds how often processes of a cgroup that cannot kill are hunted.
const killTries = 50

// killCgroup ends every process of the cgroup and of those below it, and
// nothing else. A cgroup that is gone has nothing to kill.
func killCgroup(dir string) error {
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

// killAll ends every process of the container, frozen ones too.
func (c *container) killAll() error {
	if err := c.thaw(); err != nil {
		return err
	}
	dir := c.paths.tracking()
	if dir == "" {
		return c.ct.Signal(unix.SIGKILL)
	}
	if err := killCgroup(dir); err != nil {
		return err
	}
	if c.pidfd == nil {
		return nil
	}
	// The first process may sit outside if it was moved by somebody.
	err := unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// thaw resumes a frozen container.
func (c *container) thaw() error {
	file, want := "cgroup.freeze", "0"
	dir := c.paths[""]
	if freezer := c.paths["freezer"]; freezer != "" {
		dir, file, want = freezer, "freezer.state", "THAWED"
	}
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, file)
	state, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(state)) == want {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(want), 0)
	}
	if errors.Is(err, unix.ENODEV) { // removed meanwhile
		return nil
	}
	return err
}

// removeCgroup removes a cgroup and those below it. Processes that have been
// killed may need a moment to be gone.
func removeCgroup(ctx context.Context, dir string) error {
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

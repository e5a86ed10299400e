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
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// Freezer returns the file that freezes the container's processes, and what to
// write into it. It is empty where the host has none.
func (p Paths) Freezer() (file, frozen, thawed string) {
	if dir := p["freezer"]; dir != "" {
		return filepath.Join(dir, "freezer.state"), "FROZEN", "THAWED"
	}
	if dir := p[""]; dir != "" {
		return filepath.Join(dir, "cgroup.freeze"), "1", "0"
	}
	return "", "", ""
}

// Thaw resumes a frozen container.
func (p Paths) Thaw() error {
	file, _, thawed := p.Freezer()
	if file == "" {
		return nil
	}
	state, err := os.ReadFile(file)
	if Gone(err) || err == nil && strings.TrimSpace(string(state)) == thawed {
		return nil
	}
	if err == nil {
		err = Write(file, thawed)
	}
	if Gone(err) { // removed meanwhile
		return nil
	}
	return err
}

// OOMKills returns how many processes the kernel has killed for memory in the
// container's cgroup. errs.NotFound where there is none, any more.
func (p Paths) OOMKills() (int, error) {
	if dir := p["memory"]; dir != "" {
		return MemoryKills(dir, "memory.oom_control")
	}
	return MemoryKills(p[""], "memory.events")
}

// hunts bounds the rounds in which processes of a cgroup that cannot kill are
// found: each round that finds new ones is followed by another.
const hunts = 1000

// Kill signals every process of the cgroup and of those below it, and nothing
// else. It does not wait for their end. A cgroup that is gone has nothing to kill.
func Kill(dir string) error {
	err := Write(filepath.Join(dir, "cgroup.kill"), "1")
	if Gone(err) {
		if _, err = os.Lstat(dir); Gone(err) {
			return nil
		}
		err = hunt(dir)
	}
	return err
}

// Write writes to a cgroup's file. It never makes one, which the kernel would
// answer with EACCES instead of ENOENT. It does without os.File, which takes EAGAIN,
// the answer of v2's memory.reclaim, for a reason to wait, and waits for ever.
func Write(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n, err := unix.Write(fd, []byte(text))
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Write(fd, []byte(text))
	}
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// Gone reports whether a cgroup, or a file of it, is not there, any more (ENODEV)
// or at all.
func Gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// hunt is for v1, and for Linux before 5.14: it signals until nobody is left who
// has not been signalled. A frozen v1 cgroup cannot fork, so that the first round
// gets them all there.
func hunt(dir string) error {
	freezer := filepath.Join(dir, "freezer.state")
	_ = Write(freezer, "FROZEN") // only v1's freezer has it
	defer func() { _ = Write(freezer, "THAWED") }()
	hit := map[int]bool{}
	for range hunts {
		pids, err := Processes(dir)
		if err != nil {
			return fmt.Errorf("kill cgroup %s: %w", dir, err)
		}
		found := false
		for _, pid := range pids {
			found = found || !hit[pid]
			hit[pid] = true
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone
		}
		if !found {
			return nil
		}
	}
	return fmt.Errorf("kill cgroup %s: it makes processes faster than they can be killed", dir)
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

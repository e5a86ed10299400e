package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
)

// V1 does for cgroup v1 what libcontainer does slowly or not at all. On a
// machine with v2 alone it does nothing.
type V1 struct {
	hierarchies []cgroups.Mount

	mu        sync.Mutex
	warming   bool // a goroutine does
	warmUntil time.Time
}

// OpenV1 looks at what is mounted. It is for as long as the process lives.
func OpenV1() (*V1, error) {
	v := &V1{}
	if cgroups.IsCgroup2UnifiedMode() {
		return v, nil
	}
	var err error
	if v.hierarchies, err = cgroups.GetCgroupMounts(false); err != nil {
		return nil, fmt.Errorf("cgroup hierarchies: %w", err)
	}
	return v, nil
}

// Here reports whether there is something to do.
func (v *V1) Here() bool { return len(v.hierarchies) > 0 }

// directory is where a process's cgroup of that hierarchy lies on the host; file
// has what /proc/PID/cgroup says.
func directory(h cgroups.Mount, file map[string]string) (string, error) {
	own, err := h.GetOwnCgroup(file)
	if err != nil {
		return "", err
	}
	below, err := filepath.Rel(h.Root, own)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return "", fmt.Errorf("cgroup %s lies outside of %s, which is mounted at %s", own, h.Root, h.Mountpoint)
	}
	return filepath.Join(h.Mountpoint, below), nil
}

// Make begins to make the directories of a cgroup in every hierarchy, beside what
// its caller does, who calls wait before anybody may remove them. The cpusets of a
// new directory are empty until libcontainer fills them: that one is left to it,
// as are all errors.
func (v *V1) Make(path string) (wait func()) {
	if !v.Here() || !filepath.IsAbs(path) {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, h := range v.hierarchies {
			if !slices.Contains(h.Subsystems, "cpuset") {
				_ = os.MkdirAll(filepath.Join(h.Mountpoint, path), 0o755)
			}
		}
	}()
	return func() { <-done }
}

// Package resources is what an update of a container's limits is made of, beside
// libcontainer's writing of them: what is in force is merged with what is asked
// for, and saved first, so that a refusal can be taken back; memory is taken away
// only where it is not in use. It keeps no state.
package resources

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// The files by which limits are changed, by controller in v1; in v2 all are in
// the one directory.
var limitFiles = map[bool]map[string][]string{
	false: {
		"cpu":     {"cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"},
		"cpuset":  {"cpuset.cpus", "cpuset.mems"},
		"hugetlb": {"hugetlb.*.limit_in_bytes"},
		"memory":  {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		"pids":    {"pids.max"},
	},
	true: {
		"": {"cpu.max", "cpu.weight", "cpuset.cpus", "cpuset.mems", "hugetlb.*.max", "memory.max", "memory.swap.max", "pids.max"},
	},
}

// Saved is what the kernel had as limits of a container at one moment, by file.
type Saved map[string]string

// Save reads the limits of CPU, memory, huge pages and processes in a container's
// cgroups, and of v2 the files that unified has. What the kernel does not have is
// left out.
func Save(p cgroup.Paths, unified map[string]string) (Saved, error) {
	s := Saved{}
	v2 := len(p) == 1 && p[""] != ""
	for controller, names := range limitFiles[v2] {
		if p[controller] == "" {
			continue
		}
		if v2 {
			names = slices.AppendSeq(slices.Clone(names), maps.Keys(unified))
		}
		for _, name := range names {
			paths, err := filepath.Glob(filepath.Join(p[controller], name))
			if err != nil {
				return nil, err
			}
			for _, path := range paths {
				text, err := os.ReadFile(path)
				if err != nil && !cgroup.Gone(err) {
					return nil, err
				}
				if err == nil {
					s[path] = string(text)
				}
			}
		}
	}
	return s, nil
}

// Unified returns what was saved of a v2 cgroup by the names of its files, as
// libcontainer takes limits and tells systemd of them, and nil of v1. A file that
// was empty is left out: systemd has no word for that.
func (s Saved) Unified(p cgroup.Paths) map[string]string {
	if len(p) != 1 || p[""] == "" {
		return nil
	}
	all := map[string]string{}
	for path, text := range s {
		if text = strings.TrimSpace(text); text != "" {
			all[filepath.Base(path)] = text
		}
	}
	return all
}

// Restore writes back what has changed since. Limits that depend on each other,
// as those of memory and of memory with swap, find their order by trying: one that
// is refused is tried again once others are back.
func (s Saved) Restore() error {
	paths := slices.Sorted(maps.Keys(s))
	for {
		refused := map[string]error{}
		for _, path := range paths {
			if err := restore(path, s[path]); err != nil && !cgroup.Gone(err) {
				refused[path] = err
			}
		}
		if len(refused) == 0 {
			return nil
		}
		if len(refused) == len(paths) {
			return fmt.Errorf("restore limits: %w", errors.Join(slices.Collect(maps.Values(refused))...))
		}
		paths = slices.Sorted(maps.Keys(refused))
	}
}

// restore writes a line at a time, which is how the kernel takes them.
func restore(path, text string) error {
	now, err := os.ReadFile(path)
	if err != nil || string(now) == text {
		return err
	}
	for line := range strings.Lines(text) {
		if err := cgroup.Write(path, line); err != nil {
			return err
		}
	}
	return nil
}

// SwapOOMScoreAdj sets the score of a process and returns what it was.
func SwapOOMScoreAdj(pid, adj int) (before int, err error) {
	path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if before, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return 0, err
	}
	return before, cgroup.Write(path, strconv.Itoa(adj))
}

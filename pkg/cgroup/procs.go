package cgroup

import (
	"bytes"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how far below a cgroup processes are looked for.
const maxDepth = 16

// Processes returns the ids of the processes in a cgroup and below it, in the
// caller's PID namespace. Those outside of it are 0.
func (r *Reader) Processes(g *Group) []int {
	return r.processes(nil, g.dir(g.h.counting()), maxDepth)
}

// count counts them.
func (r *Reader) count(g *Group) uint64 {
	n := bytes.Count(r.kept(g, processes), []byte{'\n'})
	if dir := g.dir(g.h.counting()); dir != "" && hasChildren(dir) {
		n = len(r.Processes(g))
	}
	return uint64(n)
}

// counting is the hierarchy in which processes are counted.
func (h *Hierarchies) counting() string {
	if h.V2 {
		return ""
	}
	for _, controller := range []string{"pids", "cpuacct", "memory"} {
		if h.Mounts[controller] != "" {
			return controller
		}
	}
	return ""
}

func (r *Reader) processes(all []int, dir string, depth int) []int {
	for line := range lines(r.file(dir, "cgroup.procs")) {
		if pid, ok := number(line); ok {
			all = append(all, int(pid))
		}
	}
	if depth == 0 || dir == "" || !hasChildren(dir) {
		return all
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return all // gone meanwhile
	}
	for _, e := range entries {
		if e.IsDir() {
			all = r.processes(all, filepath.Join(dir, e.Name()), depth-1)
		}
	}
	return all
}

// hasChildren tells whether there are cgroups below one: the kernel counts them
// among the links of the directory.
func hasChildren(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Nlink > 2
}

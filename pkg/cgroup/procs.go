package cgroup

import (
	"bytes"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxGroups bounds in how many cgroups processes are looked for: a container may
// make any number of them.
const maxGroups = 1000

// Processes returns the ids of the processes in a cgroup and below it, in the
// caller's PID namespace. Those outside of it are 0.
func (r *Reader) Processes(g *Group) []int {
	var all []int
	dirs := []string{g.dir(g.h.counting())}
	for i := 0; i < len(dirs) && i < maxGroups; i++ {
		all = r.processes(all, dirs[i])
		dirs = append(dirs, below(dirs[i], maxGroups-len(dirs))...)
	}
	return all
}

// count counts them.
func (r *Reader) count(g *Group) uint64 {
	n := bytes.Count(r.kept(g, processes), []byte{'\n'})
	if dir := g.dir(g.h.counting()); !g.Shallow && dir != "" && hasChildren(dir) {
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

func (r *Reader) processes(all []int, dir string) []int {
	for line := range lines(r.file(dir, "cgroup.procs")) {
		if pid, ok := number(line); ok {
			all = append(all, int(pid))
		}
	}
	return all
}

// below returns the cgroups right below one, but for what is more than most.
func below(dir string, most int) (dirs []string) {
	if dir == "" || most <= 0 || !hasChildren(dir) {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil // gone meanwhile
	}
	defer f.Close()
	entries, _ := f.ReadDir(most + filesInCgroup) // what came before an error is good
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	return dirs
}

// filesInCgroup is more than a cgroup has files.
const filesInCgroup = 500

// hasChildren tells whether there are cgroups below one: the kernel counts them
// among the links of the directory.
func hasChildren(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Nlink > 2
}

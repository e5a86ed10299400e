package cgroup

import (
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// file is one that a Group keeps open.
type file int

const (
	cpuUsage file = iota
	memoryUsage
	memoryLimit
	memoryStat
	swapUsage
	swapLimit
	processes
	cpuPressure
	memoryPressure
	ioPressure
	keptFiles
)

// place is a file's hierarchy and name.
type place struct{ controller, name string }

var placesV2 = [keptFiles]place{
	cpuUsage: {"", "cpu.stat"}, memoryUsage: {"", "memory.current"}, memoryLimit: {"", "memory.max"}, memoryStat: {"", "memory.stat"},
	swapUsage: {"", "memory.swap.current"}, swapLimit: {"", "memory.swap.max"}, processes: {"", "cgroup.procs"},
	cpuPressure: {"", "cpu.pressure"}, memoryPressure: {"", "memory.pressure"}, ioPressure: {"", "io.pressure"},
}

var placesV1 = [keptFiles]place{
	cpuUsage: {"cpuacct", "cpuacct.usage"}, memoryUsage: {"memory", "memory.usage_in_bytes"}, memoryLimit: {"memory", "memory.limit_in_bytes"},
	memoryStat: {"memory", "memory.stat"}, processes: {"pids", "cgroup.procs"},
	cpuPressure: {"", "cpu.pressure"}, memoryPressure: {"", "memory.pressure"}, ioPressure: {"", "io.pressure"},
}

// FilesPerGroup is how many descriptors a Group may hold.
const FilesPerGroup = int(keptFiles)

// The values of a descriptor that is none.
const (
	unopened int32 = -1
	absent   int32 = -2
)

// Group is one cgroup in all hierarchies. It is for one goroutine at a time.
type Group struct {
	h    *Hierarchies
	path string
	// Transient groups keep no file open. Of Shallow ones processes are counted that
	// are in the group itself, not below.
	Transient, Shallow bool
	fds                [keptFiles]int32
}

// Group returns the cgroup at path, which begins at the hierarchies' root. It
// opens nothing yet. The caller closes it.
func (h *Hierarchies) Group(path string) *Group {
	g := &Group{h: h, path: strings.TrimSuffix("/"+strings.TrimPrefix(path, "/"), "/")}
	for i := range g.fds {
		g.fds[i] = unopened
	}
	return g
}

// Path is where the cgroup is, below the hierarchies' root.
func (g *Group) Path() string { return g.path }

// Close closes what is open. The group can be read again.
func (g *Group) Close() {
	for i, fd := range g.fds {
		if fd >= 0 {
			_ = unix.Close(int(fd)) // it was read only
		}
		g.fds[i] = unopened
	}
}

// dir returns the directory in a hierarchy; "" where that is not there.
func (g *Group) dir(controller string) string {
	mount := g.h.Mounts[controller]
	if mount == "" {
		return ""
	}
	return mount + g.path
}

// exists tells why a cgroup has told nothing.
func (g *Group) exists() error {
	for _, mount := range g.h.Mounts {
		if unix.Access(mount+g.path, unix.F_OK) == nil {
			return nil // without controllers
		}
	}
	return fmt.Errorf("cgroup %s: %w", g.path, fs.ErrNotExist)
}

// open returns the descriptor of a kept file, negative where it is not there.
func (g *Group) open(f file) int32 {
	if g.fds[f] != unopened {
		return g.fds[f]
	}
	at := placesV1[f]
	if g.h.V2 {
		at = placesV2[f]
	}
	g.fds[f] = absent
	if dir := g.dir(at.controller); dir != "" && at.name != "" {
		if fd, err := unix.Open(dir+"/"+at.name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			g.fds[f] = int32(fd)
		}
	}
	return g.fds[f]
}

// kept returns what is in a kept file, good until the next call.
func (r *Reader) kept(g *Group, f file) []byte {
	fd := g.open(f)
	if fd < 0 {
		return nil
	}
	data, err := r.all(int(fd))
	switch {
	case err != nil: // pressure is not counted, or the cgroup went: then all are closed
		_ = unix.Close(int(fd)) // it was read only
		g.fds[f] = absent
	case g.Transient:
		_ = unix.Close(int(fd))
		g.fds[f] = unopened
	}
	return data
}

// file returns what is in a file, good until the next call. A file that is not
// there, any more or at all, is empty: the one who asks knows what that means.
func (r *Reader) file(dir, name string) []byte {
	if dir == "" {
		return nil
	}
	fd, err := unix.Open(dir+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	data, _ := r.all(fd) // what cannot be read says nothing
	return data
}

// maxFile bounds a file. memory.stat is the longest that every cgroup has.
const maxFile = 1 << 20

// all reads a file from its beginning. What is shorter than a page comes at once.
func (r *Reader) all(fd int) ([]byte, error) {
	n := 0
	for {
		m, err := unix.Pread(fd, r.buf[n:], int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		}
		n += m
		if m == 0 || n < pageSize && n < len(r.buf) || n >= maxFile {
			return r.buf[:n], nil
		}
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, n)...)
		}
	}
}

// pageSize is what one read of a cgroup file brings at least, if there is more.
const pageSize = 4 << 10

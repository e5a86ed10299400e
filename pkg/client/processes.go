package client

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process of a container, as this machine sees it.
type Process struct {
	PID       int    `json:"pid"`
	Parent    int    `json:"parent"`
	UID       uint32 `json:"uid"`
	Container string `json:"container"` // its id
	State     string `json:"state"`
	// CPU is the processor time that it has used, and Memory what it has in memory.
	CPU     time.Duration `json:"cpuNanoseconds"`
	Memory  int64         `json:"memory"`
	Command string        `json:"command"`
}

// Processes returns the processes of containers, by the ids of these: what is in
// their cgroups.
func Processes(containers []string) ([]Process, error) { return processes("/proc", containers) }

func processes(proc string, containers []string) ([]Process, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	all := []Process{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		groups, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil {
			continue // it has ended
		}
		i := slices.IndexFunc(containers, func(id string) bool { return strings.Contains(string(groups), id) })
		if i < 0 {
			continue
		}
		p := Process{PID: pid, Container: containers[i]}
		if p.read(dir) == nil { // else it has ended
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Process) int { return a.PID - b.PID })
	return all, nil
}

const ticks = 100 // USER_HZ, in which /proc counts processor time

// read reads what /proc/PID tells.
func (p *Process) read(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return err
	}
	open, last := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	fields := strings.Fields(string(data[last+1:]))
	if open < 0 || last < open || len(fields) < 22 {
		return os.ErrInvalid
	}
	p.State = fields[0]
	p.Parent, _ = strconv.Atoi(fields[1])
	for _, f := range fields[11:13] { // utime stime
		n, _ := strconv.ParseInt(f, 10, 64)
		p.CPU += time.Duration(n) * time.Second / ticks
	}
	pages, _ := strconv.ParseInt(fields[21], 10, 64)
	p.Memory = pages * int64(os.Getpagesize())
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	p.UID = st.Uid
	p.Command = "[" + string(data[open+1:last]) + "]" // of a zombie nothing else is left
	if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		p.Command = strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return nil
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// companions are the processes that a runtime's daemon stands on or starts for
// its pods, by the daemon's name. They are part of what the runtime costs.
var companions = map[string][]string{
	"berthd":     {"berth-runtime"},
	"containerd": {"containerd-shim-runc-v2", "pause"},
	"crio":       {"conmon", "conmonrs", "pause"},
}

// finder finds the runtime's processes anew each time, as they come and go.
type finder struct {
	pids  []int
	names []string
	netns string
}

// memory is the sum over processes.
type memory struct {
	Bytes     int64
	Processes int
}

// finder returns the finder for --process or, without, for the process at the
// other end of the socket and its companions.
func (d *driver) finder() (finder, error) {
	netns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return finder{}, err
	}
	f := finder{netns: netns}
	for _, p := range d.Processes {
		if pid, err := strconv.Atoi(p); err == nil {
			f.pids = append(f.pids, pid)
			continue
		}
		f.names = append(f.names, p)
	}
	if len(d.Processes) > 0 {
		return f, nil
	}
	pid, err := peer(strings.TrimPrefix(d.Endpoint, "unix://"))
	if err != nil {
		return finder{}, fmt.Errorf("find the runtime's process: %w", err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return finder{}, err
	}
	f.pids, f.names = []int{pid}, companions[programName(exe)]
	return f, nil
}

// programName returns the name of the program that /proc/PID/exe leads to. The
// kernel marks one that has been replaced since, by an upgrade.
func programName(exe string) string {
	return strings.TrimSuffix(filepath.Base(exe), " (deleted)")
}

// peer returns the pid of the process that listens at the unix socket.
func peer(path string) (int, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}

// Find returns the runtime's processes. A name counts only in the network
// namespace of this process or as the child of a process that counts, so that
// another instance on the same machine is left out.
func (f finder) Find() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	found := slices.Clone(f.pids)
	parents := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || slices.Contains(f.pids, pid) || !f.named(pid) {
			continue
		}
		if netns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && netns == f.netns {
			found = append(found, pid)
			continue
		}
		if s, err := readStat(pid); err == nil {
			parents[pid] = s.parent
		}
	}
	for pid, parent := range parents {
		if slices.Contains(found, parent) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// named reports whether the process runs a program of one of the names. A
// sealed copy of a program has no path, so the command line counts as well.
func (f finder) named(pid int) bool {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // gone or a kernel thread: ""
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	argv0, _, _ := bytes.Cut(line, []byte{0})
	return slices.Contains(f.names, programName(exe)) || slices.Contains(f.names, filepath.Base(string(argv0)))
}

// PSS sums the proportional set size: memory that processes share is divided
// among them.
func (f finder) PSS() (memory, error) {
	pids, err := f.Find()
	if err != nil {
		return memory{}, err
	}
	var m memory
	for _, pid := range pids {
		file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has just gone
		}
		n, err := parsePSS(file)
		file.Close()
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return memory{}, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		m.Bytes += n
		m.Processes++
	}
	if m.Processes == 0 {
		return memory{}, errors.New("found no process of the runtime; name them with --process")
	}
	return m, nil
}

// CPU sums the processes' CPU time and that of the children they waited for.
func (f finder) CPU() (time.Duration, error) {
	pids, err := f.Find()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		if s, err := readStat(pid); err == nil {
			sum += s.cpu
		}
	}
	return sum, nil
}

// parsePSS reads the Pss line of smaps_rollup.
func parsePSS(r io.Reader) (int64, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 && fields[0] == "Pss:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			return kb * 1024, err
		}
	}
	if err := s.Err(); err != nil {
		return 0, err
	}
	return 0, errors.New("no Pss line")
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	parent int
	cpu    time.Duration
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(b))
}

// parseStat reads proc_pid_stat(5). The name, in parentheses, may hold
// anything; the fields are counted from behind it.
func parseStat(s string) (stat, error) {
	const tick = time.Second / 100 // USER_HZ, the same on every Linux that Go runs on
	_, rest, _ := cutLast(s, ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("stat has %d fields", len(fields))
	}
	var n [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} { // ppid utime stime cutime cstime
		v, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return stat{}, err
		}
		n[i] = v
	}
	return stat{parent: int(n[0]), cpu: time.Duration(n[1]+n[2]+n[3]+n[4]) * tick}, nil
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

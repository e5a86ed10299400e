package node

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Snapshot is what the machine has that a runtime could leave behind, one line
// for each thing.
type Snapshot map[string]bool

// Take looks at the machine. Only what is ours to leave is counted: mounts,
// cgroups, interfaces, packet filter rules, and processes of the given
// directory.
func Take(dir string) (Snapshot, error) {
	s := Snapshot{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		s["mount "+strings.Fields(line)[4]] = true
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		s["interface "+l.Name] = true
	}
	if err := s.cgroups(); err != nil {
		return nil, err
	}
	s.rules()
	return s, s.processes(dir)
}

// cgroups notes all but Berth's own at the top, below which everything of
// Berth's is: it stays, as those of systemd and kubelet do. What systemd has
// running as services is its own.
func (s Snapshot) cgroups() error {
	home, _ := filepath.Glob("/sys/fs/cgroup/*/berth") // the pattern is well formed
	home = append(home, "/sys/fs/cgroup/berth", "/sys/fs/cgroup/berth.slice")
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup that goes away while we look is no leak
		}
		if path == "/sys/fs/cgroup/system.slice" {
			return fs.SkipDir
		}
		if !slices.Contains(home, path) {
			s["cgroup "+path] = true
		}
		return nil
	})
}

// rules notes every rule of iptables and nftables, without counters. Tables
// and chains without rules are no leak: iptables leaves its own everywhere.
func (s Snapshot) rules() {
	for _, cmd := range [][]string{{"iptables-save"}, {"ip6tables-save"}, {"nft", "-s", "list", "ruleset"}} {
		out, err := exec.Command(cmd[0], cmd[1:]...).Output()
		if err != nil {
			continue // not on this machine
		}
		for line := range strings.Lines(string(out)) {
			text, _, _ := strings.Cut(strings.TrimSpace(line), " [")
			if text != "" && !structure(text) {
				s["rule "+cmd[0]+" "+text] = true
			}
		}
	}
}

// structure tells what is no rule from what is.
func structure(line string) bool {
	return strings.ContainsAny(line[:1], "#:*}") || line == "COMMIT" || strings.HasSuffix(line, "{") || strings.HasPrefix(line, "type ")
}

// processes notes those that have dir in their command line or are executed
// from there.
func (s Snapshot) processes(dir string) error {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range all {
		cmdline, err := os.ReadFile(path)
		text := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		if err == nil && strings.Contains(text, dir) && !strings.Contains(text, ".test") {
			s["process "+filepath.Base(filepath.Dir(path))+" "+text] = true
		}
	}
	return nil
}

// Left returns what is in s and was not there before.
func (s Snapshot) Left(before Snapshot) []string {
	var left []string
	for thing := range s {
		if !before[thing] {
			left = append(left, thing)
		}
	}
	slices.Sort(left)
	return left
}

// Fds counts the open files of a process.
func Fds(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

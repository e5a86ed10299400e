package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseStatCountsFieldsBehindTheName(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 20 30 20 0 1 0 100 1000 10"
	s, err := parseStat(line)
	if err != nil {
		t.Fatal(err)
	}
	if s.parent != 7 || s.cpu != 2500*time.Millisecond {
		t.Errorf("parent %d, cpu %s", s.parent, s.cpu)
	}
	if _, err := parseStat("42 (x) S 7"); err == nil {
		t.Error("a short line passed")
	}
}

func TestParsePSS(t *testing.T) {
	n, err := parsePSS(strings.NewReader("56-7f ---p 0 0:0 0 [rollup]\nRss:  900 kB\nPss:  451 kB\nPss_Dirty: 9 kB\n"))
	if err != nil || n != 451*1024 {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := parsePSS(strings.NewReader("Rss: 1 kB\n")); err == nil {
		t.Error("a file without Pss passed")
	}
}

func TestFinderFindsByPidAndCountsItself(t *testing.T) {
	f := finder{pids: []int{os.Getpid()}}
	m, err := f.PSS()
	if err != nil {
		t.Fatal(err)
	}
	if m.Processes != 1 || m.Bytes < 1<<20 {
		t.Errorf("memory of this process: %+v", m)
	}
	if _, err := (finder{names: []string{"no such program"}}).PSS(); err == nil {
		t.Error("no process, and no error")
	}
}

func TestAProgramThatWasReplacedIsFoundByItsName(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "berth-runtime-of-old")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "1000")
	c.Args[0] = "another name" // that of the program is to be read
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f, err := (&driver{options: options{Processes: []string{"berth-runtime-of-old"}}}).finder()
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := f.Find(); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("found %v, %v; want %d", pids, err, c.Process.Pid)
	}
}

package partial

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const data = "data"

// begin leaves a beginning of 100 bytes, without its marks.
func begin(t *testing.T, dir string) {
	t.Helper()
	p := open(t, dir)
	if _, err := p.WriteString(strings.Repeat("x", 100)); err != nil {
		t.Fatal(err)
	}
	p.Note(Mark{Offset: 1})
	p.Abandon(true)
}

func open(t *testing.T, dir string) *File {
	t.Helper()
	p, err := Open(dir, "a", data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = p.Stop(), p.Close() })
	return p
}

func at(n int64) Mark { return Mark{Offset: n, State: fmt.Append(nil, n)} }

// slot is a mark that is written.
type slot struct {
	name, boot string
	n          int64
	broken     bool
}

func writeSlots(t *testing.T, path string, all []slot) {
	t.Helper()
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s := slots{file: w}
	for _, m := range all {
		s.name, s.boot = m.name, m.boot
		if err := s.put(at(m.n)); err != nil {
			t.Fatal(err)
		}
		if !m.broken {
			continue
		}
		if _, err := w.WriteAt([]byte{1}, (1-s.next)*slotSize+slotHeader); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheWrittenMarkCountsUntilTheMachineIsStartedAnew(t *testing.T) {
	boot := bootID()
	for name, c := range map[string]struct {
		written []slot
		durable any // nil for absent
		want    int64
	}{
		"a process has died":         {[]slot{{"a", boot, 60, false}, {"a", boot, 70, false}}, journal{journalVersion, "a", at(40)}, 70},
		"while it wrote":             {[]slot{{"a", boot, 60, false}, {"a", boot, 70, true}}, journal{journalVersion, "a", at(40)}, 60},
		"in turn":                    {[]slot{{"a", boot, 50, false}, {"a", boot, 60, false}, {"a", boot, 70, false}}, nil, 70},
		"before anything was synced": {[]slot{{"a", boot, 70, false}}, nil, 70},
		"the power was cut":          {[]slot{{"a", "another", 70, false}}, journal{journalVersion, "a", at(40)}, 40},
		"and nothing was synced":     {[]slot{{"a", "another", 70, false}}, nil, 0},
		"the boot is not known":      {[]slot{{"a", "", 70, false}}, journal{journalVersion, "a", at(40)}, 40},
		"an empty file":              {nil, journal{journalVersion, "a", at(40)}, 40},
		"no journal":                 {[]slot{{"a", boot, 30, false}}, "no journal", 30},
		"beyond the file":            {[]slot{{"a", boot, 101, false}}, journal{journalVersion, "a", at(40)}, 40},
		"another file's":             {[]slot{{"b", boot, 70, false}}, journal{journalVersion, "a", at(40)}, 40},
		"another file's, synced":     {[]slot{{"a", boot, 30, false}}, journal{journalVersion, "b", at(40)}, 30},
		"of another version, synced": {[]slot{{"a", boot, 30, false}}, journal{1, "a", at(40)}, 30},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			begin(t, dir)
			for _, file := range []string{writtenFile, journalFile} {
				if err := os.Truncate(filepath.Join(dir, prefix+"a", file), 0); err != nil {
					t.Fatal(err)
				}
			}
			writeSlots(t, filepath.Join(dir, prefix+"a", writtenFile), c.written)
			if c.durable != nil {
				if err := statefile.Write(filepath.Join(dir, prefix+"a", journalFile), c.durable); err != nil {
					t.Fatal(err)
				}
			}
			m := open(t, dir).Last()
			if m.Offset != c.want || c.want > 0 && string(m.State) != fmt.Sprint(c.want) {
				t.Errorf("goes on from %d with %q, not from %d", m.Offset, m.State, c.want)
			}
		})
	}
}

func TestMarksAreWrittenBehindTheFile(t *testing.T) {
	dir := t.TempDir()
	begin(t, dir)
	leftover := filepath.Join(dir, prefix+"a", ".tmp-"+journalFile+"-1")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, dir)
	if left, err := filepath.Glob(leftover); err != nil || len(left) > 0 {
		t.Errorf("what a killed process was writing is left: %v", left)
	}
	for _, n := range []int64{10, 30, 20} { // the last goes back, and is none
		p.Note(Mark{Offset: n})
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if written, durable := again.slots.last(), again.journaled(); written.Offset != 30 || durable.Offset != 30 {
		t.Errorf("written %d, durable %d", written.Offset, durable.Offset)
	}
	if err := again.slots.put(Mark{State: make([]byte, slotSize)}); err == nil {
		t.Error("a mark that is too large is written over the next slot")
	}
	if err := again.Forget(); err != nil || open(t, dir).Last().Offset != 0 {
		t.Errorf("forgotten: %v, %d", err, open(t, dir).Last().Offset)
	}
}

func TestABeginningWithoutMarksGoes(t *testing.T) {
	dir := t.TempDir()
	for name, end := range map[string]func(p *File){
		"no mark":  func(p *File) { p.Abandon(true) },
		"bad":      func(p *File) { p.Note(Mark{Offset: 1}); p.Abandon(false) },
		"no space": func(p *File) { _ = os.RemoveAll(p.Dir); p.Note(Mark{Offset: 1}); p.Abandon(true) },
	} {
		end(open(t, dir))
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left: %v, %v", name, left, err)
		}
	}
}

func TestSweepLeavesWhatGoesOn(t *testing.T) {
	dir := t.TempDir()
	begin(t, dir)
	var locks keylock.Locks
	left := func() int { names, _ := os.ReadDir(dir); return len(names) }
	unlock, err := locks.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir, 0, &locks); err != nil || left() != 1 {
		t.Errorf("while it is open: %d, %v", left(), err)
	}
	unlock()
	if err := Sweep(dir, time.Hour, &locks); err != nil || left() != 1 {
		t.Errorf("while it is young: %d, %v", left(), err)
	}
	if err := Sweep(dir, 0, &locks); err != nil || left() != 0 {
		t.Errorf("stays: %d, %v", left(), err)
	}
}

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

func TestTheWrittenMarkCountsUntilTheMachineIsStartedAnew(t *testing.T) {
	at := func(boot string, n int64) journal {
		return journal{journalVersion, "a", boot, Mark{Offset: n, State: fmt.Append(nil, n)}}
	}
	for name, c := range map[string]struct {
		written, durable any // nil for absent
		want             int64
	}{
		"a process has died":         {at(bootID(), 70), at(bootID(), 40), 70},
		"before anything was synced": {at(bootID(), 70), nil, 70},
		"the power was cut":          {at("another", 70), at("another", 40), 40},
		"and nothing was synced":     {at("another", 70), nil, 0},
		"the boot is not known":      {at("", 70), at("", 40), 40},
		"an empty file":              {nil, at("another", 40), 40},
		"no JSON":                    {"no journal", at(bootID(), 40), 40},
		"beyond the file":            {at(bootID(), 101), at(bootID(), 40), 40},
		"another file's":             {journal{journalVersion, "b", bootID(), Mark{Offset: 70}}, at(bootID(), 40), 40},
		"another version's":          {journal{1, "a", bootID(), Mark{Offset: 70}}, at(bootID(), 40), 40},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			begin(t, dir)
			for file, j := range map[string]any{writtenFile: c.written, journalFile: c.durable} {
				path := filepath.Join(dir, prefix+"a", file)
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
				if j == nil {
					continue
				}
				if err := statefile.Write(path, j); err != nil {
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
	leftover := filepath.Join(dir, prefix+"a", ".tmp-"+writtenFile+"-1")
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
	for _, file := range []string{writtenFile, journalFile} {
		if m := p.read(file); m.Offset != 30 {
			t.Errorf("%s has %d", file, m.Offset)
		}
	}
	if err := p.Forget(); err != nil || open(t, dir).Last().Offset != 0 {
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

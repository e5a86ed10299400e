package statefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

type record struct {
	Version int
	Name    string
}

func TestWriteThenRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.json")
	for _, write := range []func(string, any) error{statefile.Write, statefile.WriteDurable} {
		want := record{1, "a"}
		if err := write(path, want); err != nil {
			t.Fatal(err)
		}
		var got record
		if err := statefile.Read(path, &got); err != nil || got != want {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v %v", entries, err)
	}
}

func TestReadTellsMissingFromCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	var r record
	if err := statefile.Read(path, &r); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for _, bad := range []string{"", "{\"Version\":1,\"Na"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := statefile.Read(path, &r); !errors.Is(err, statefile.ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	aside, err := statefile.Quarantine(path)
	if err != nil || !statefile.Leftover(filepath.Base(aside)) {
		t.Errorf("quarantine: %q, %v", aside, err)
	}
}

func TestSweepRemovesUnfinishedWritesOnly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"r.json", "bad.json"} {
		if err := statefile.Write(filepath.Join(dir, name), record{1, name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := statefile.Quarantine(filepath.Join(dir, "bad.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".tmp-r.json-123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := statefile.Sweep(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != "bad.json.corrupt" || entries[1].Name() != "r.json" {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := statefile.Sweep(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestWriteKeepsTheOldRecordWhereItFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	if err := statefile.Write(path, record{1, "old"}); err != nil {
		t.Fatal(err)
	}
	if err := statefile.Write(path, func() {}); err == nil {
		t.Fatal("a function was encoded")
	}
	if err := statefile.Write(path, record{2, strings.Repeat("x", 17<<20)}); !errors.Is(err, statefile.ErrTooLarge) {
		t.Fatalf("a record that cannot be read: %v", err)
	}
	var got record
	if err := statefile.Read(path, &got); err != nil || got.Name != "old" {
		t.Errorf("got %v, %v", got, err)
	}
}

package policy

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesSeeWhatChanges(t *testing.T) {
	dir := t.TempDir()
	path, key := filepath.Join(dir, "policy.json"), filepath.Join(dir, "key.pub")
	var f Files
	if p, err := f.Load(path); p != nil || err != nil {
		t.Fatalf("absent: %v, %v", p, err)
	}
	put(t, path, `{"default": [{"type": "sigstoreSigned", "keyPath": "`+key+`"}]}`)
	seen := map[string]bool{}
	load := func(step string) {
		t.Helper()
		p, err := f.Load(path)
		if err != nil || seen[string(p.Digest())] {
			t.Fatalf("%s: %v, %v", step, p, err)
		}
		seen[string(p.Digest())] = true
		if again, _ := f.Load(path); again.Digest() != p.Digest() {
			t.Errorf("%s: loaded twice it differs", step)
		}
	}
	load("without its key")
	put(t, key, string(fixture(t, "cosign.pub")))
	load("with its key")
	put(t, key, string(fixture(t, "cosign2.pub"))) // of the same size, within the same tick perhaps
	load("with another key")
	put(t, path, `{"default": [{"type": "reject"}]}`)
	load("another policy")
	put(t, path, `{"default": [{"type": "reject"}`)
	if p, err := f.Load(path); p != nil || err == nil {
		t.Errorf("broken: %v, %v", p, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if p, err := f.Load(path); p != nil || err != nil {
		t.Errorf("removed: %v, %v", p, err)
	}
}

func TestFilesKeepWhatDoesNotChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.json")
	put(t, path, `{"default": [{"type": "reject"}]}`)
	var f Files
	first, err := f.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	f.loaded[path].at = time.Now().Add(time.Hour) // the files' times have settled
	if again, _ := f.Load(path); again != first {
		t.Error("an unchanged policy is read again")
	}
}

func TestAPipeIsNoPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var f Files
	if p, err := f.Load(path); p != nil || err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", p, err)
	}
}

// What CreateContainer pays where there is no policy.
func BenchmarkLoadAbsent(b *testing.B) {
	var f Files
	path := filepath.Join(b.TempDir(), "policy.json")
	for b.Loop() {
		if p, err := f.Load(path); p != nil || err != nil {
			b.Fatal(p, err)
		}
	}
}

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/test/testutil"
)

// TestRootSurvivesAReboot holds that a mount whose record is there comes back
// with what was written.
func TestRootSurvivesAReboot(t *testing.T) {
	s, diffID := layered(t)
	dir := t.TempDir()
	open := func() *Roots {
		r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	path, err := r.Mount(t.Context(), Root{ID: "c", Layers: []digest.Digest{diffID}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "b"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), unix.Unmount(path, 0), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	r = open()
	defer func() {
		if err := errors.Join(r.Unmount(context.Background(), "c"), r.Close()); err != nil {
			t.Error(err)
		}
	}()
	if path, err = r.Remount(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(path, "b")); err != nil || string(data) != "y" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := r.Remount(t.Context(), "d"); !errors.Is(err, errs.NotFound) {
		t.Errorf("absent: %v", err)
	}
}

func TestMountThatFailsKeepsWhatWasWritten(t *testing.T) {
	s, diffID := layered(t)
	dir := t.TempDir()
	r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	root := Root{ID: "c", Layers: []digest.Digest{diffID}}
	path, err := r.Mount(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "b"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Unmount(path, 0), os.Rename(s.Tree(diffID), s.Tree(diffID)+"-gone")); err != nil {
		t.Fatal(err)
	}
	for _, record := range []string{"whole", "damaged"} {
		if _, err := r.Mount(t.Context(), root); err == nil {
			t.Fatalf("mounted without its layer; record %s", record)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "writable", "c", upperDir, "b")); err != nil || string(data) != "y" {
			t.Errorf("record %s: %q, %v", record, data, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "writable", "c", rootFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Mount(t.Context(), Root{ID: "d", Layers: root.Layers}); err == nil {
		t.Fatal("mounted without its layer")
	}
	if _, err := os.Lstat(filepath.Join(dir, "writable", "d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a fresh one stayed: %v", err)
	}
}

func TestOnlyRootOfTheUserNamespacePassesToARootFileSystem(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	r, err := Open(store(t), filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for id, c := range map[string]struct {
		mappings []specs.LinuxIDMapping
		mode     os.FileMode
		gid      uint32
	}{
		"plain":  {nil, 0o700, 0},
		"mapped": {[]specs.LinuxIDMapping{{ContainerID: 0, HostID: 70000, Size: 65536}}, 0o710, 70000},
	} {
		for range 2 { // the second finds what the first has made
			if err := r.makeTarget(Root{ID: id, GIDMappings: c.mappings}); err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(r.home(id))
		if err != nil || info.Mode().Perm() != c.mode || info.Sys().(*syscall.Stat_t).Gid != c.gid {
			t.Errorf("%s: %v, %v", id, info, err)
		}
		if err := r.Unmount(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "rootfs")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRootIDsAreNoPaths(t *testing.T) {
	s := store(t)
	dir := t.TempDir()
	r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\x00b", trashPrefix + "x"} {
		if _, err := r.Mount(t.Context(), Root{ID: id}); !errors.Is(err, errs.Invalid) {
			t.Errorf("mount %q: %v", id, err)
		}
		if err := r.Unmount(t.Context(), id); !errors.Is(err, errs.Invalid) {
			t.Errorf("unmount %q: %v", id, err)
		}
	}
}

func TestImageWithoutLayersShowsWhatIsWrittenAlsoAfterARestart(t *testing.T) {
	s := store(t)
	dir := t.TempDir()
	open := func() *Roots {
		r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	paths := map[string]string{}
	for id, mappings := range map[string][]specs.LinuxIDMapping{"plain": nil, "mapped": {{ContainerID: 0, HostID: 70000, Size: 65536}}} {
		path, err := r.Mount(t.Context(), Root{ID: id, UIDMappings: mappings, GIDMappings: mappings})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		paths[id] = path
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open()
	for id, path := range paths {
		if names, err := os.ReadDir(path); err != nil || len(names) != 1 || names[0].Name() != "f" {
			t.Errorf("%s: %v, %v", id, names, err)
		}
		if err := r.Unmount(context.Background(), id); err != nil {
			t.Error(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if all, damaged, err := r.List(); err != nil || len(all)+len(damaged) != 0 {
		t.Errorf("list: %v, %v, %v", all, damaged, err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("layers: %v, %v", all, err)
	}
}

func BenchmarkMountUnmount(b *testing.B) {
	s, diffID := layered(b)
	dir := b.TempDir()
	r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for n := 0; b.Loop(); n++ {
		id := fmt.Sprint("c", n)
		if _, err := r.Mount(b.Context(), Root{ID: id, Layers: []digest.Digest{diffID}}); err != nil {
			b.Fatal(err)
		}
		if err := r.Unmount(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

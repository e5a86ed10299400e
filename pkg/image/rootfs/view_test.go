package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestViewsShowStacksOfEverySize mounts as many layers as an image may have, or
// none.
func TestViewsShowStacksOfEverySize(t *testing.T) {
	s, one := layered(t)
	two := addLayer(t, s, "b")
	dir := t.TempDir()
	r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, layers := range [][]digest.Digest{nil, {one}, {one, two}} {
		stack, err := s.Stack(t.Context(), layers, func(...digest.Digest) {})
		if err != nil {
			t.Fatal(err)
		}
		target := t.TempDir()
		if err := r.View(t.Context(), Root{ID: "v", Layers: stack}, target); err != nil {
			t.Fatalf("%d layers: %v", len(layers), err)
		}
		names, err := os.ReadDir(target)
		if err != nil || len(names) != len(layers) {
			t.Errorf("%d layers: %v, %v", len(layers), names, err)
		}
		if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%d layers: write: %v", len(layers), err)
		}
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	}
}

func TestATreeIsShownAsLayersAre(t *testing.T) {
	s, _ := layered(t)
	dir := t.TempDir()
	r, err := Open(s, filepath.Join(dir, "writable"), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	tree, target := filepath.Join(dir, "tree"), t.TempDir()
	if err := errors.Join(os.Mkdir(tree, 0o755), os.WriteFile(filepath.Join(tree, "a"), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 1000}}
	for _, m := range [][]specs.LinuxIDMapping{nil, maps} {
		if err := r.View(t.Context(), Root{ID: "v", Tree: tree, UIDMappings: m, GIDMappings: m}, target); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		data, err := os.ReadFile(filepath.Join(target, "a"))
		if statErr := unix.Stat(filepath.Join(target, "a"), &st); err != nil || statErr != nil || string(data) != "x" || st.Uid != uint32(len(m))*300000 {
			t.Errorf("%q of %d: %v, %v", data, st.Uid, err, statErr)
		}
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	}
}

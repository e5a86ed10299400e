package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
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

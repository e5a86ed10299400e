package image_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/test/testutil"
)

// reboot makes what the service below dir has written that of a kernel which has
// stopped uncleanly, and opens it again.
func (f form) reboot(t *testing.T, dir string) *image.Service {
	t.Helper()
	marks := filepath.Join(dir, "root/layers/.unclean")
	boots, err := os.ReadDir(marks)
	if err != nil || len(boots) == 0 {
		t.Fatalf("no marks: %v", err)
	}
	for _, b := range boots {
		if err := os.Rename(filepath.Join(marks, b.Name()), filepath.Join(marks, "earlier-"+b.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return f.open(t, dir)
}

// form is one that layers are kept in.
type form layer.Backend

// forms runs a test with each form.
func forms(t *testing.T, test func(t *testing.T, f form)) {
	testutil.Root(t)
	for _, b := range []layer.Backend{layer.Directory, layer.EROFS} {
		t.Run(string(b), func(t *testing.T) { test(t, form(b)) })
	}
}

func (f form) open(t testing.TB, dir string) *image.Service {
	t.Helper()
	s, err := image.Open(t.Context(), image.Options{Root: dir + "/root", State: dir + "/state", KeepBlobs: true, LayerBackend: layer.Backend(f)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func layerOf(dir string, diffID digest.Digest) string {
	return filepath.Join(dir, "root/layers/sha256-"+diffID.Encoded())
}

// content is where a layer has all that it shows.
func (f form) content(dir string, diffID digest.Digest) string {
	if f == form(layer.EROFS) {
		return filepath.Join(layerOf(dir, diffID), "tar")
	}
	return filepath.Join(layerOf(dir, diffID), "fs")
}

// spoil makes the first byte of a file in a layer an X.
func (f form) spoil(t *testing.T, dir string, diffID digest.Digest, file string) {
	t.Helper()
	path, at := f.content(dir, diffID), int64(0)
	if f == form(layer.EROFS) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at = int64(bytes.Index(data, append([]byte(file), 0))) + 512 // its header
	} else {
		path = filepath.Join(path, file)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = w.WriteAt([]byte("X"), at)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
}

package image_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/testutil"
)

// stored lists the content that is kept below dir.
func stored(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"root/layers/sha*", "root/images/blobs/sha*/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// halfPulled opens a service whose pull has failed after the first of two layers,
// beside an image that is whole.
func halfPulled(t *testing.T, dir string) *image.Service {
	t.Helper()
	s, err := image.Open(t.Context(), image.Options{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), KeepBlobs: true, LayerBackend: "auto", MaxConcurrentDownloads: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	loaded(t, s, "whole:v1", images.Image{Layers: []images.Layer{{Files: []images.File{{Name: "whole"}}}}})
	b := build(t, sample("x"))
	reg := serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, b.Layers[1].Digest.String()) {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}})
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: reg.Put("app", "v1", b)}); !errors.Is(err, errs.Unavailable) {
		t.Fatal(err)
	}
	return s
}

// TestRunRemovesWhatAPullLeftADayAgo runs it for two hours, on a clock of its own.
func TestRunRemovesWhatAPullLeftADayAgo(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	s := halfPulled(t, dir)
	before := stored(t, dir)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		at := time.Now().Add(-22*time.Hour - 30*time.Minute)
		for _, p := range before {
			if err := os.Chtimes(p, at, at); err != nil {
				t.Fatal(err)
			}
		}
		go func() { _ = s.Run(ctx) }()
		for hour, want := range []int{len(before), len(before), 5} { // layer, what it is mounted from, blob, config and manifest of the whole image
			synctest.Wait()
			if got := stored(t, dir); len(got) != want {
				t.Errorf("after %d hours: %v", hour, got)
			}
			<-time.After(time.Hour + time.Second)
		}
	})
	if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
}

// TestRunKeepsWhatADamagedRecordMayName has content that only Check may remove.
func TestRunKeepsWhatADamagedRecordMayName(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	first := halfPulled(t, dir)
	i, err := first.Get("whole:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root/images/records/sha256-"+i.ID.Encoded()+".json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, before := open(t, dir), stored(t, dir)
	for _, p := range before {
		if err := os.Chtimes(p, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := again.Run(ended); err != nil || len(stored(t, dir)) != len(before) {
		t.Errorf("%v of %v are left, %v", stored(t, dir), before, err)
	}
	if _, err := again.Check(t.Context(), true, nil); err != nil || len(stored(t, dir)) != 0 {
		t.Errorf("after repair: %v, %v", stored(t, dir), err)
	}
}

// TestPullThatFillsTheDiskLeavesNothing pulls to a disk of 4 MiB.
func TestPullThatFillsTheDiskLeavesNothing(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	large := sample("x")
	large.Layers[1].Files = append(large.Layers[1].Files, images.File{Name: "large", Data: make([]byte, 8<<20)})
	_, err := s.Pull(t.Context(), image.PullRequest{Ref: serve(t, nil).Put("app", "v1", build(t, large))})
	if !errors.Is(err, errs.Exhausted) {
		t.Errorf("got %v", err)
	}
	if left := stored(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

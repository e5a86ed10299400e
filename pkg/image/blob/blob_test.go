package blob_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
)

func open(t *testing.T, dir string) *blob.Store {
	t.Helper()
	s, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPutVerifies(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const text = "content"
	d := digest.FromString(text)
	for name, c := range map[string]struct {
		data string
		size int64
	}{
		"wrong bytes": {"contenT", 7}, "too short": {"conten", 7}, "too long": {"contents", 7}, "wrong size": {text, 6}, "nothing": {"", -1},
	} {
		if err := s.Put(t.Context(), d, c.size, strings.NewReader(c.data)); !errors.Is(err, blob.ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
		if s.Has(d) {
			t.Fatalf("%s is visible", name)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "ingest")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	for _, size := range []int64{7, -1} {
		if err := s.Put(t.Context(), d, size, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := s.ReadAll(d, 7); err != nil || string(data) != text {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := s.ReadAll(d, 6); !errors.Is(err, errs.Invalid) {
		t.Errorf("over the limit: %v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Digest != d || all[0].Size != 7 || time.Since(all[0].Made) > time.Hour {
		t.Errorf("list: %v, %v", all, err)
	}
	for range 2 {
		if err := s.Remove(d); err != nil || s.Has(d) {
			t.Errorf("remove: %v", err)
		}
	}
}

func TestDigestsAreNoPaths(t *testing.T) {
	s := open(t, t.TempDir())
	for _, d := range []digest.Digest{"", "sha256:", "sha256:../../etc/passwd", "sha256:" + digest.Digest(strings.Repeat("A", 64)), "md5:d41d8cd98f00b204e9800998ecf8427e", "../x:" + digest.Digest(strings.Repeat("a", 64))} {
		if _, err := s.Open(d); errs.Of(err) != errs.Invalid && errs.Of(err) != errs.Unsupported {
			t.Errorf("%q: %v", d, err)
		}
		if err := s.Put(t.Context(), d, -1, strings.NewReader("x")); err == nil {
			t.Errorf("%q was written", d)
		}
	}
}

func TestOpenSweepsUnfinishedWrites(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	w, err := s.Create(digest.FromString("x"), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	open(t, dir)
	if left, err := os.ReadDir(filepath.Join(dir, "ingest")); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestCancelledPut(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, digest.FromString("x"), 1, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestBringOpensOnceForAll(t *testing.T) {
	s := open(t, t.TempDir())
	const text = "content"
	d := digest.FromString(text)
	var opened atomic.Int64
	begun := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := s.Bring(t.Context(), d, int64(len(text)), func(int64) (io.ReadCloser, error) {
				if opened.Add(1) == 1 {
					<-begun
					return nil, errs.Unavailable // the next one tries
				}
				return io.NopCloser(strings.NewReader(text)), nil
			})
			if err != nil && !errors.Is(err, errs.Unavailable) {
				t.Error(err)
			}
		})
	}
	close(begun)
	wg.Wait()
	if opened.Load() != 2 || !s.Has(d) {
		t.Errorf("opened %d times", opened.Load())
	}
	if err := s.Bring(t.Context(), "sha256:x", 1, nil); !errors.Is(err, errs.Invalid) {
		t.Errorf("no digest: %v", err)
	}
}

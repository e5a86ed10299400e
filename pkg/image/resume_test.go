package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/pkg/image/upkeep"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// breaking is a source whose connection breaks at a place of each blob.
type breaking struct {
	data       []byte
	breaks     int // -1 for never
	from       []int64
	distrusted int
}

func (b *breaking) Blob(_ context.Context, _ ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	b.from = append(b.from, offset)
	if b.breaks < 0 {
		return io.NopCloser(bytes.NewReader(b.data[offset:])), nil
	}
	reset := iotest.ErrReader(fmt.Errorf("connection reset: %w", errs.Unavailable))
	return io.NopCloser(io.MultiReader(bytes.NewReader(b.data[offset:b.breaks]), reset)), nil
}

func (b *breaking) Distrust(_ digest.Digest, err error) (bool, error) {
	b.distrusted++
	return false, err
}

const mib = 1 << 20

// weights is a layer of four MiB that nothing makes smaller.
func weights(t *testing.T) (l catalog.Layer, packed []byte) {
	t.Helper()
	data := make([]byte, 4*mib)
	_, _ = rand.NewChaCha8([32]byte{5}).Read(data) // never fails
	b, err := images.Image{Layers: []images.Layer{{Compression: images.Gzip, Files: []images.File{{Name: "w", Data: data}}}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	config, err := manifest.ParseConfig(b.Blobs[b.Config])
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Layer{DiffID: config.RootFS.DiffIDs[0], Blob: b.Layers[0]}, b.Blobs[b.Layers[0].Digest]
}

// again opens a service as the next process does.
func again(t *testing.T, dir string, do func(s *Service) error) error {
	t.Helper()
	s, err := Open(t.Context(), Options{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), KeepBlobs: true})
	if err != nil {
		t.Fatal(err)
	}
	return errors.Join(do(s), s.Close())
}

func TestBlobsThatAreKeptAreGoneOnWithByTheNextProcess(t *testing.T) {
	testutil.Root(t)
	l, packed := weights(t)
	file := ispec.Descriptor{Digest: l.Blob.Digest, Size: l.Blob.Size}
	for what, bring := range map[string]func(s *Service, src source) error{
		"a layer": func(s *Service, src source) error {
			_, err := s.addLayer(t.Context(), l, src, nil)
			return err
		},
		"an artifact's file": func(s *Service, src source) error {
			return s.artifacts.Fetch(t.Context(), file, blobs{s, src, nil})
		},
	} {
		for _, damaged := range []bool{false, true} {
			dir := t.TempDir()
			src := &breaking{data: packed, breaks: 5 * mib / 2}
			if err := again(t, dir, func(s *Service) error { return bring(s, src) }); !errors.Is(err, errs.Unavailable) {
				t.Fatalf("%s: %v", what, err)
			}
			want := []int64{0, 2 * mib}
			if damaged {
				damage(t, dir)
				want = append(want, 0)
			}
			src.breaks = -1
			if err := again(t, dir, func(s *Service) error {
				return errors.Join(bring(s, src), s.blobs.Verify(t.Context(), file.Digest))
			}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if fmt.Sprint(src.from) != fmt.Sprint(want) || src.distrusted > 0 {
				t.Errorf("%s: opened at %v, want %v; %d times distrusted", what, src.from, want, src.distrusted)
			}
		}
	}
}

// damage changes a byte of what has come.
func damage(t *testing.T, dir string) {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(dir, "root/images/blobs/ingest/*/data"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("%v: %v", parts, err)
	}
	f, err := os.OpenFile(parts[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("damage"), mib); err != nil {
		t.Fatal(err)
	}
}

func TestWhatNobodyGoesOnWithIsCollected(t *testing.T) {
	l, packed := weights(t)
	dir := t.TempDir()
	_ = again(t, dir, func(s *Service) error {
		src := &breaking{data: packed, breaks: 5 * mib / 2}
		if err := s.artifacts.Fetch(t.Context(), l.Blob, blobs{s, src, nil}); !errors.Is(err, errs.Unavailable) {
			t.Error(err)
		}
		left := func() int {
			parts, _ := filepath.Glob(filepath.Join(dir, "root/images/blobs/ingest/.partial-*"))
			return len(parts)
		}
		if err := upkeep.Finish(s.keeper.Collect(t.Context(), upkeep.LeftFor)); err != nil || left() != 1 {
			t.Errorf("%d are left of what may be gone on with: %v", left(), err)
		}
		if err := s.clean(t.Context()); err != nil || left() != 0 {
			t.Errorf("%d are left: %v", left(), err)
		}
		return nil
	})
}

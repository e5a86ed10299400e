package image

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// mirrors are sources of which some give wrong bytes.
type mirrors struct {
	bad   int // of so many
	all   int
	asked int
	data  []byte
}

func (m *mirrors) Blob(context.Context, ispec.Descriptor, int64) (io.ReadCloser, error) {
	data := bytes.Clone(m.data)
	if m.asked++; m.asked <= m.bad {
		data[len(data)/2] ^= 1
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *mirrors) Distrust(_ digest.Digest, err error) (bool, error) { return m.asked < m.all, err }

func TestWrongBytesAreFetchedFromAnotherMirror(t *testing.T) {
	testutil.Root(t)
	for _, packed := range []images.Compression{images.Plain, images.Gzip, images.Zstd} {
		b, err := images.Image{Layers: []images.Layer{
			{Compression: packed, Files: []images.File{{Name: "f", Data: bytes.Repeat([]byte("some text"), 1000)}}},
		}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		config, err := manifest.ParseConfig(b.Blobs[b.Config])
		if err != nil {
			t.Fatal(err)
		}
		l := catalog.Layer{DiffID: config.RootFS.DiffIDs[0], Blob: b.Layers[0]}
		for _, c := range []struct{ bad, asked int }{{0, 1}, {1, 2}, {2, 3}, {3, 3}} {
			m := &mirrors{bad: c.bad, all: 3, data: b.Blobs[l.Blob.Digest]}
			err := addOne(t, l, m)
			if (err == nil) != (c.bad < 3) || m.asked != c.asked {
				t.Errorf("compression %d, %d bad: asked %d times, %v", packed, c.bad, m.asked, err)
			}
			if c.bad == 3 && errs.Of(mismatch(err)) != errs.Invalid {
				t.Errorf("got %v", err)
			}
		}
	}
}

// addOne adds a layer to a service of its own.
func addOne(t *testing.T, l catalog.Layer, src source) error {
	t.Helper()
	s, err := Open(t.Context(), Options{Root: t.TempDir(), State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.addLayer(t.Context(), l, src, nil)
	return err
}

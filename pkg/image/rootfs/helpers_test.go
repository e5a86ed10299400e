package rootfs

import (
	"bytes"
	"io"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/entry/entrytest"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/test/testutil"
)

// TestMain gives the tests no umask to rely on: a daemon's may be anything.
func TestMain(m *testing.M) {
	syscall.Umask(0o077)
	m.Run()
}

func store(t testing.TB) *layer.Store {
	t.Helper()
	testutil.Root(t)
	s, err := layer.Open(filepath.Join(t.TempDir(), "layers"), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plain is a stream that cannot be opened again but from its beginning.
type plain struct{ io.Reader }

func (plain) Close() error             { return nil }
func (plain) Mark() (layer.Mark, bool) { return layer.Mark{}, false }

// layered returns a store that holds a layer of one file, a.
func layered(t testing.TB) (*layer.Store, digest.Digest) {
	t.Helper()
	s := store(t)
	return s, addLayer(t, s, "a")
}

// addLayer adds a layer of one file.
func addLayer(t testing.TB, s *layer.Store, name string) digest.Digest {
	t.Helper()
	data := entrytest.Stream(t, entrytest.Item{Name: name, Data: "x"})
	d := digest.FromBytes(data)
	if _, err := s.Unpack(t.Context(), d, func(layer.Mark) (layer.Stream, error) { return plain{bytes.NewReader(data)}, nil }); err != nil {
		t.Fatal(err)
	}
	return d
}

package tree

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
)

func TestADamagedIndexIsRefused(t *testing.T) {
	x, err := Scan(bytes.NewReader(entrytest.Stream(t, entrytest.Item{Name: "a/b", Data: "1"})), entry.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	whole := x.Encode()
	for n := range whole {
		bad := bytes.Clone(whole)
		bad[n] ^= 4
		if _, err := decode(bad, 0); !errors.Is(err, ErrIndex) {
			t.Fatalf("byte %d: %v", n, err)
		}
	}
	if _, err := decode(whole[:len(whole)-1], 0); !errors.Is(err, ErrIndex) {
		t.Error(err)
	}
	again, err := decode(whole, 0)
	if err != nil || !bytes.Equal(again.Encode(), whole) {
		t.Errorf("%v, %v", again, err)
	}
}

func TestOrdersThatNoTreeHasAreRefused(t *testing.T) {
	stream := entrytest.Stream(t, entrytest.Item{Name: "f", Data: "x"}, entrytest.Item{Name: "f/g", Data: "y"})
	if _, err := Scan(bytes.NewReader(stream), entry.Limits{}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	if _, err := Scan(bytes.NewReader(stream[:1100]), entry.Limits{}); !errors.Is(err, errs.Invalid) {
		t.Errorf("cut: %v", err)
	}
}

// checkPieces holds that the content of each file is where Scan says.
func checkPieces(t *testing.T, stream []byte) {
	t.Helper()
	rec := &recorder{r: bytes.NewReader(stream)}
	s := scanner{recorder: rec, stream: tar.NewReader(rec), tree: newTree(entry.Limits{}.WithDefaults()), index: &Index{}}
	for {
		rec.forget()
		h, err := s.stream.Next()
		if err != nil {
			return
		}
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse || h.Size > 1<<20 {
			continue
		}
		f := &Inode{Size: h.Size, Data: Source{Offset: rec.offset}}
		if s.sparse(h, f) != nil {
			continue
		}
		extents, from := f.Extents, f.Data.Offset
		switch {
		case f.Data.Device == 1:
			last := s.index.spilled[len(s.index.spilled)-1]
			extents, from = last.extents, last.from
		case extents == nil:
			extents = []Extent{{0, h.Size}}
		}
		want, err := io.ReadAll(s.stream)
		if err != nil {
			continue
		}
		got := make([]byte, h.Size)
		for _, e := range extents {
			from += int64(copy(got[e.Offset:e.Offset+e.Size], stream[from:]))
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%q of %d bytes is elsewhere: %v", h.Name, h.Size, extents)
		}
	}
}

func TestPathsThroughLongLinksAreGivenUp(t *testing.T) {
	items := []entrytest.Item{{Name: "a/", Mode: 0o755}, {Name: "f", Data: "x"}, {Name: "l00", Kind: tar.TypeSymlink, Link: "."}}
	for n := 1; n < entry.MaxSymlinks; n++ {
		items = append(items, entrytest.Item{
			Name: fmt.Sprintf("l%02d", n), Kind: tar.TypeSymlink, Link: strings.Repeat("a/../", 800) + fmt.Sprintf("l%02d", n-1),
		})
	}
	last := fmt.Sprintf("l%02d", entry.MaxSymlinks-1)
	for n := range 100 {
		items = append(items, entrytest.Item{Name: fmt.Sprint("h", n), Kind: tar.TypeLink, Link: last + "/f"})
	}
	scan := func(items []entrytest.Item) (*Index, error) {
		return Scan(bytes.NewReader(entrytest.Stream(t, items...)), entry.Limits{})
	}
	if _, err := scan(items); !errors.Is(err, errFar) {
		t.Errorf("hard links to a far file: %v", err)
	}
	// The links of the layer above lead through those of the one below.
	links := items[entry.MaxSymlinks+2:]
	var layers [][]byte
	for _, items := range [][]entrytest.Item{items[:entry.MaxSymlinks+2], links} {
		x, err := scan(items)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, x.Encode())
	}
	if _, err := Compose(2, func(n int) ([]byte, error) { return layers[n], nil }); !errors.Is(err, errFar) {
		t.Errorf("hard links of a layer above: %v", err)
	}
}

// FuzzScan holds that no stream makes a panic, goes over the limits or loses
// anything when it is encoded.
func FuzzScan(f *testing.F) {
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "a/", Mode: 0o755}, entrytest.Item{Name: "a/b", Data: "x"}, entrytest.Item{Name: "c", Kind: tar.TypeSymlink, Link: "../a"}))
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "a/.wh.b"}, entrytest.Item{Name: "a/.wh..wh..opq"}, entrytest.Item{Name: "h", Kind: tar.TypeLink, Link: "a/b"}))
	f.Add(entrytest.Stream(f, entrytest.Item{Name: "dev/null", Kind: tar.TypeChar, Major: 1, Minor: 3}, entrytest.Item{Name: "x", Data: "x", Xattrs: map[string]string{"user.a": "b"}}))
	f.Add(entrytest.Sparse(f, 1<<18))
	f.Add(entrytest.GNU("\xff", "x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkPieces(t, data)
		limits := entry.Limits{Bytes: 1 << 20, Entries: 200, Names: 1 << 16}
		x, err := Scan(bytes.NewReader(data), limits)
		if err != nil {
			return
		}
		if x.Bytes > limits.Bytes || x.Inodes > limits.Entries {
			t.Errorf("over the limits: %d, %d", x.Bytes, x.Inodes)
		}
		b := x.Encode()
		again, err := decode(b, 0)
		if err != nil || !bytes.Equal(again.Encode(), b) {
			t.Errorf("encoded and decoded: %v", err)
		}
		if _, err := Compose(2, func(int) ([]byte, error) { return b, nil }); err != nil && !errors.Is(err, errs.Invalid) {
			t.Error(err)
		}
	})
}

// FuzzDecode holds that what is no index makes no panic.
func FuzzDecode(f *testing.F) {
	x, err := Scan(bytes.NewReader(entrytest.Stream(f, entrytest.Item{Name: "a/b", Data: "x"}, entrytest.Item{Name: "c", Kind: tar.TypeLink, Link: "a/b"})), entry.Limits{})
	if err != nil {
		f.Fatal(err)
	}
	whole := x.Encode()
	f.Add(whole[len(indexMagic) : len(whole)-4])
	f.Fuzz(func(_ *testing.T, data []byte) {
		b := append([]byte(indexMagic), data...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		_, _ = decode(b, 0)
	})
}

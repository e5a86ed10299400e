package stream

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
)

// source has one blob, which may differ from what its digest says.
type source struct {
	data   []byte
	behind io.Reader // after data
	asked  []int64   // offsets
}

func (s *source) open(_ context.Context, offset int64) (io.ReadCloser, error) {
	s.asked = append(s.asked, offset)
	var r io.Reader = bytes.NewReader(s.data[offset:])
	if s.behind != nil {
		r = io.MultiReader(r, s.behind)
	}
	return io.NopCloser(r), nil
}

func described(b []byte) ispec.Descriptor {
	return ispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// layerBytes is what hardly shrinks, and the forms in which a registry may have
// it.
func layerBytes(t *testing.T) (plain []byte, packed map[string][]byte) {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // test data
	for range 2 << 10 {
		noise := make([]byte, 5<<10)
		for n := range noise {
			noise[n] = byte(random.Uint32())
		}
		plain = append(append(plain, noise...), plain[len(plain)/2:min(len(plain)/2+random.IntN(2000), len(plain))]...)
	}
	var whole, members, frames bytes.Buffer
	pack := func(w io.WriteCloser, plain []byte) {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	pack(gzip.NewWriter(&whole), plain)
	for n := 0; n < len(plain); n += 1 << 20 {
		part := plain[n:min(n+1<<20, len(plain))]
		pack(gzip.NewWriter(&members), part)
		z, err := zstd.NewWriter(&frames)
		if err != nil {
			t.Fatal(err)
		}
		pack(z, part)
	}
	return plain, map[string][]byte{"gzip": whole.Bytes(), "gzip members": members.Bytes(), "zstd frames": frames.Bytes(), "plain": plain}
}

// readMarks reads a stream to its end, by n bytes, with the mark after each.
func readMarks(t *testing.T, l *Stream, from int64, n int) (got []byte, marks []layer.Mark, err error) {
	t.Helper()
	p := make([]byte, n)
	for err == nil {
		n, err = l.Read(p)
		got = append(got, p[:n]...)
		if m, ok := l.Mark(); ok && (len(marks) == 0 || marks[len(marks)-1].Offset != m.Offset) {
			marks = append(marks, m)
			if m.Offset > from+int64(len(got)) {
				t.Errorf("a mark at %d after %d bytes", m.Offset, len(got))
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	return got, marks, err
}

func open(t *testing.T, d ispec.Descriptor, from layer.Mark, src *source) *Stream {
	t.Helper()
	l, err := Open(t.Context(), inflate.NewPool(0), Source{Blob: d, Open: src.open}, from)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestStreamGoesOnAtEachMark(t *testing.T) {
	plain, forms := layerBytes(t)
	for name, packed := range forms {
		t.Run(name, func(t *testing.T) {
			d := described(packed)
			got, marks, err := readMarks(t, open(t, d, layer.Mark{}, &source{data: packed}), 0, 100_000)
			if !errors.Is(err, io.EOF) || !bytes.Equal(got, plain) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			switch {
			case len(marks) == 0 && name == "gzip":
				t.Skip("this build's decoder has no marks inside of a gzip member") // see inflate's tests
			case len(marks) < len(packed)/(8<<20):
				t.Errorf("%d marks in %d bytes", len(marks), len(packed))
			}
			for _, m := range marks {
				src := &source{data: packed}
				got, _, err := readMarks(t, open(t, d, m, src), m.Offset, 1<<20)
				if !errors.Is(err, io.EOF) || !bytes.Equal(got, plain[m.Offset:]) {
					t.Errorf("from %d on: %d bytes, %v", m.Offset, len(got), err)
				}
				if src.asked[0] == 0 {
					t.Errorf("a stream from %d on was fetched from its beginning", m.Offset)
				}
				last := &source{data: append([]byte(nil), packed...)}
				last.data[len(packed)-1] ^= 1
				if _, _, err := readMarks(t, open(t, d, m, last), m.Offset, 1<<20); !errors.Is(err, blob.ErrMismatch) && !errors.Is(err, errs.Invalid) {
					t.Errorf("wrong at the end, from %d on: %v", m.Offset, err)
				}
			}
		})
	}
}

func TestAWrongByteBeforeTheMarkIsFoundAtTheEnd(t *testing.T) {
	plain, forms := layerBytes(t)
	packed := forms["plain"]
	wrong := append([]byte(nil), packed...)
	wrong[1000] ^= 1
	d := described(packed)
	_, marks, err := readMarks(t, open(t, d, layer.Mark{}, &source{data: wrong}), 0, 1<<20)
	if !errors.Is(err, blob.ErrMismatch) || len(marks) == 0 {
		t.Fatalf("%d marks, %v", len(marks), err)
	}
	got, _, err := readMarks(t, open(t, d, marks[0], &source{data: packed}), marks[0].Offset, 1<<20)
	if !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("%d of %d bytes, %v", len(got), len(plain), err)
	}
}

func TestForeignMarksAreRefused(t *testing.T) {
	_, forms := layerBytes(t)
	of := func(name string) (layer.Mark, ispec.Descriptor) {
		d := described(forms[name])
		_, marks, _ := readMarks(t, open(t, d, layer.Mark{}, &source{data: forms[name]}), 0, 1<<20)
		return marks[0], d
	}
	mark, d := of("zstd frames")
	other, _ := of("plain")
	changed := func(f func(*state)) layer.Mark {
		var st state
		if err := json.Unmarshal(mark.State, &st); err != nil {
			t.Fatal(err)
		}
		f(&st)
		text, err := json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		return layer.Mark{Offset: mark.Offset, State: text}
	}
	if l, err := Open(t.Context(), inflate.NewPool(0), Source{Blob: d, Open: (&source{data: forms["zstd frames"]}).open}, changed(func(*state) {})); err != nil {
		t.Error(err)
	} else if err := l.Close(); err != nil {
		t.Error(err)
	}
	for name, m := range map[string]layer.Mark{
		"another blob's":    other,
		"not a state":       {Offset: 1, State: []byte("x")},
		"none":              {Offset: 1},
		"a later version":   changed(func(st *state) { st.Version++ }),
		"another decoder":   changed(func(st *state) { st.Decoder.Kind = "brotli" }),
		"no hash":           changed(func(st *state) { st.Packed.Hash = nil }),
		"below zero":        changed(func(st *state) { st.Packed.Offset = -1 }),
		"beyond the blob":   changed(func(st *state) { st.Decoder.Offset = 1 << 40 }),
		"before the packed": changed(func(st *state) { st.Decoder.Offset = st.Packed.Offset - 1 }),
	} {
		if _, err := Open(t.Context(), inflate.NewPool(0), Source{Blob: d, Open: (&source{data: make([]byte, d.Size+9)}).open}, m); !errors.Is(err, errs.Unsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAKeptBlobIsReadFromItsBeginning(t *testing.T) {
	plain, forms := layerBytes(t)
	for name, packed := range forms {
		store, err := blob.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d := described(packed)
		for _, wrong := range []byte{1, 0} {
			keep, err := store.Create(d.Digest, d.Size)
			if err != nil {
				t.Fatal(err)
			}
			src := &source{data: append([]byte(nil), packed...)}
			src.data[len(packed)-1] ^= wrong
			l, err := Open(t.Context(), inflate.NewPool(0), Source{Blob: d, Open: src.open, Keep: keep}, layer.Mark{})
			if err != nil {
				t.Fatal(err)
			}
			got, marks, err := readMarks(t, l, 0, 1<<20)
			if len(marks) != 0 || store.Has(d.Digest) != (wrong == 0) {
				t.Errorf("%s: %d marks, kept: %t", name, len(marks), store.Has(d.Digest))
			}
			if errors.Is(err, io.EOF) != (wrong == 0) || wrong == 0 && !bytes.Equal(got, plain) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
	}
}

// blocked never gives a byte, until its context ends.
type blocked struct{ ctx context.Context }

func (b blocked) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

// TestStreamLeavesNothingBehind ends streams at many places; synctest fails if a
// goroutine stays.
func TestStreamLeavesNothingBehind(t *testing.T) {
	_, forms := layerBytes(t)
	broken := errors.New("the source's own")
	for name, packed := range forms {
		pool, d := inflate.NewPool(2<<20), described(packed)
		start := func(ctx context.Context, src *source) *Stream {
			l, err := Open(ctx, pool, Source{Blob: d, Open: src.open}, layer.Mark{})
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		for _, n := range []int64{0, 1, 5 << 20} {
			synctest.Test(t, func(t *testing.T) { // closed
				l := start(t.Context(), &source{data: packed})
				if _, err := io.CopyN(io.Discard, l, n); err != nil {
					t.Error(name, err)
				}
				synctest.Wait() // its buffers are full
				if err := errors.Join(l.Close(), l.Close()); err != nil {
					t.Error(name, err)
				}
				if _, err := l.Read(make([]byte, 1)); err == nil {
					t.Error("a closed stream was read")
				}
			})
			synctest.Test(t, func(t *testing.T) { // cancelled while the source blocks
				ctx, cancel := context.WithCancel(t.Context())
				l := start(ctx, &source{data: packed[:n], behind: blocked{ctx}})
				go func() {
					synctest.Wait()
					cancel()
				}()
				if _, err := io.Copy(io.Discard, l); !errors.Is(err, context.Canceled) {
					t.Error(name, err)
				}
				_ = l.Close()
			})
			synctest.Test(t, func(t *testing.T) { // the source fails
				l := start(t.Context(), &source{data: packed[:n], behind: failing{broken}})
				if _, err := io.Copy(io.Discard, l); !errors.Is(err, broken) || errs.Of(err) != "" {
					t.Error(name, err)
				}
				_ = l.Close()
			})
		}
		all := pool.Buffers().Lease(0, 100)
		for range 8 {
			if _, err := all.Get(t.Context()); err != nil {
				t.Error(name, "buffers are missing:", err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestATruncatedBlobMayBeWholeTheNextTime(t *testing.T) {
	_, forms := layerBytes(t)
	for name, packed := range forms {
		_, _, err := readMarks(t, open(t, described(packed), layer.Mark{}, &source{data: packed[:len(packed)-1]}), 0, 1<<20)
		if !errors.Is(err, blob.ErrMismatch) || !errors.Is(err, io.ErrUnexpectedEOF) || errs.Of(err) != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLentPiecesAreTheStream has another goroutine look at what is lent, and give
// it back late.
func TestLentPiecesAreTheStream(t *testing.T) {
	plain, packed := layerBytes(t)
	for name, data := range packed {
		s := &source{data: data}
		l, err := Open(t.Context(), inflate.NewPool(64<<20), Source{Blob: described(data), Open: s.open}, layer.Mark{})
		if err != nil {
			t.Fatal(err)
		}
		type lent struct {
			p    []byte
			back func()
		}
		pieces, got := make(chan lent, 4), make(chan []byte)
		go func() {
			var all []byte
			for l := range pieces {
				all = append(all, l.p...)
				l.back()
			}
			got <- all
		}()
		var at int64
		var end error
		marks := 0
		for end == nil {
			var p []byte
			var back func()
			if p, back, end = l.Lend(); end != nil {
				break
			}
			at += int64(len(p))
			pieces <- lent{p, back}
			if m, ok := l.Mark(); ok {
				if marks++; m.Offset > at {
					t.Errorf("%s: a mark at %d after %d bytes", name, m.Offset, at)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		close(pieces)
		if all := <-got; !errors.Is(end, io.EOF) || !bytes.Equal(all, plain) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(all), len(plain), end)
		}
		if marks == 0 && name == "gzip members" {
			t.Errorf("%s: no mark", name)
		}
	}
}

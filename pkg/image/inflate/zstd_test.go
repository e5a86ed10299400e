package inflate

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth/pkg/errs"
)

// TestEveryFormOfZstd reads each stream whole, and again from each of its marks.
func TestEveryFormOfZstd(t *testing.T) {
	for _, s := range zstdCorpus(t) {
		z, err := Stream(iotest.HalfReader(bytes.NewReader(s.packed)))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		marks := 0
		for {
			p, err := z.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(s.name, err)
			}
			got = append(got, p...)
			if _, ok := z.Position(); ok {
				marks++
				goesOn(t, s, z.Mark(), len(got))
			}
		}
		if !bytes.Equal(got, s.plain) || marks == 0 {
			t.Errorf("%s: %d of %d bytes, %d marks", s.name, len(got), len(s.plain), marks)
		}
		_ = z.Close()
	}
}

func TestDamagedZstd(t *testing.T) {
	for _, s := range zstdCorpus(t) {
		last := len(s.packed) - 1
		for what, b := range map[string][]byte{
			"truncated": s.packed[:last], "half": s.packed[:last/2+1], "a byte too many": append(append([]byte(nil), s.packed...), 'x'),
			"zeros behind": append(append([]byte(nil), s.packed...), make([]byte, 512)...),
		} {
			if _, err := inflated(bytes.NewReader(b)); !errors.Is(err, errs.Invalid) {
				t.Errorf("%s, %s: %v", s.name, what, err)
			}
		}
	}
}

// TestZstdWindowsAreBounded opens a frame that wants more memory than it may have.
func TestZstdWindowsAreBounded(t *testing.T) {
	frame := append(append([]byte(nil), zstdMagic...), 0, (31-10)<<3, 1, 0, 0) // 2 GiB, an empty block
	if _, err := inflated(bytes.NewReader(frame)); !errors.Is(err, errs.Invalid) || !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		t.Error(err)
	}
}

// FuzzZstd holds that a stream is what the library makes of it as a whole, or an
// error of both.
func FuzzZstd(f *testing.F) {
	for _, s := range zstdCorpus(f) {
		if len(s.packed) < 4<<10 {
			f.Add(s.packed)
		}
	}
	f.Add(manyFrames(f, []int{10, 300, 0, 70, 500, 20, 3}).packed)
	f.Add(bytes.Join([][]byte{window(1<<10, text), window(16<<20, text), window(1<<10, text)}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newInput(iotest.HalfReader(bytes.NewReader(b)))
		z := &Reader{in: in, d: newZstd(t.Context(), in, small())}
		defer z.Close()
		whole, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer whole.Close()
		want, wantErr := io.ReadAll(io.LimitReader(whole, 8<<20))
		got, err := io.ReadAll(io.LimitReader(z, 8<<20))
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v; the library has %d, %v", len(got), err, len(want), wantErr)
		}
	})
}

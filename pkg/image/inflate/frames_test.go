package inflate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/buffer"
)

// packedFrame packs plain as one frame.
func packedFrame(t testing.TB, plain []byte, sized, sum bool) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderCRC(sum), zstd.WithZeroFrames(true), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if sized {
		return z.EncodeAll(plain, nil)
	}
	for _, p := range [][]byte{plain[:len(plain)/2], plain[len(plain)/2:]} { // a flush hides the size
		if _, err := z.Write(p); err != nil {
			t.Fatal(err)
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func skippableFrame(n int) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{0x5a, 0x2a, 0x4d, 0x18}, uint32(n)), make([]byte, n)...)
}

// manyFrames is a stream of frames of all forms, small and large ones.
func manyFrames(t testing.TB, sizes []int) sample {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // test data
	s := sample{name: fmt.Sprintf("frames of %d", sizes)}
	for n, size := range sizes {
		plain := make([]byte, size)
		for i := range plain {
			plain[i] = byte(r.IntN(20))
		}
		s.packed = append(s.packed, packedFrame(t, plain, n%2 == 0, n%3 != 0)...)
		if n%4 == 1 {
			s.packed = append(s.packed, skippableFrame(n)...)
		}
		s.plain = append(s.plain, plain...)
	}
	return s
}

// frameCorpus has streams that fill batches of the pool small in all ways: by what
// goes in, by what comes out, by their number, with frames that belong in none.
func frameCorpus(t testing.TB) []sample {
	t.Helper()
	const kb = 1 << 10
	forms := [][]int{
		{0, 0, 0, 0},
		{1, 0, 1, 5, 0},
		{100 * kb, 300 * kb, 300 * kb, 300 * kb, 300 * kb, 1},
		{600 * kb, 600 * kb, 600 * kb, 600 * kb, 10},
		{10, 900 * kb, 10, 900 * kb, 10 * kb, 900 * kb, 900 * kb, 5, 5},
		{2000 * kb},
		{10, 10, 2000 * kb, 10, 10, 400 * kb},
		{700 * kb, 700 * kb, 700 * kb, 701 * kb, 701 * kb, 7},
	}
	r := rand.New(rand.NewPCG(7, 8)) //nolint:gosec // test data
	var tiny []int
	for range 450 {
		tiny = append(tiny, r.IntN(3000))
	}
	var all []sample
	for _, sizes := range append(forms, tiny) {
		all = append(all, manyFrames(t, sizes))
	}
	return all
}

// TestFramesInBatches reads streams of many frames whole, into given buffers, and
// again from each mark.
func TestFramesInBatches(t *testing.T) {
	for _, s := range frameCorpus(t) {
		for _, memory := range []int64{32 << 20, 4 << 20, 0} {
			p := small()
			p.memory = buffer.New(memory)
			z, err := p.Stream(t.Context(), iotest.HalfReader(bytes.NewReader(s.packed)))
			if err != nil {
				t.Fatal(err)
			}
			got, batched, last := []byte(nil), false, -1
			buf, at := make([]byte, 100<<10), 0
			for {
				if z.Full() {
					buf = make([]byte, 100<<10)
					at, _ = z.Place(buf)
				}
				b, err := z.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if len(b) > 0 && len(got) > 0 && &b[0] != &buf[at] {
					t.Fatalf("%s: %d bytes do not lie at %d of the buffer", s.name, len(b), at)
				}
				at += len(b)
				got = append(got, b...)
				batched = batched || z.d.(*zstdReader).ahead.have > 0
				if _, ok := z.Position(); ok && len(got) > last {
					last = len(got)
					goesOn(t, s, z.Mark(), last)
				}
			}
			_ = z.Close()
			if !bytes.Equal(got, s.plain) || last != len(got) {
				t.Errorf("%s: %d of %d bytes, the last mark at %d", s.name, len(got), len(s.plain), last)
			}
			if batched != (memory > 0 && len(s.plain) != 2000<<10) {
				t.Errorf("%s with %d bytes for batches: %t", s.name, memory, batched)
			}
			if !p.memory.Borrow(memory) {
				t.Errorf("%s: some of the budget is missing after all", s.name)
			}
		}
	}
}

// TestFramesBrokenAnywhere breaks a stream off at each of its bytes, in batches and
// alone, and between frames, where it is whole.
func TestFramesBrokenAnywhere(t *testing.T) {
	s := manyFrames(t, []int{10, 300, 0, 70, 500, 20, 3})
	for _, memory := range []int64{32 << 20, 0} {
		p := small()
		p.memory = buffer.New(memory)
		whole := 0
		for n := 1; n <= len(s.packed); n++ {
			z, err := p.Stream(t.Context(), bytes.NewReader(s.packed[:n]))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(z)
			_ = z.Close()
			switch {
			case err == nil && n >= 4:
				whole++
			case err != nil && !errors.Is(err, errs.Invalid):
				t.Errorf("%d bytes: %v", n, err)
			}
			if n >= 4 && !bytes.HasPrefix(s.plain, got) {
				t.Errorf("%d bytes are %d others", n, len(got))
			}
		}
		if whole != 7+2 { // behind frames, and behind skippable ones
			t.Errorf("%d of the stream's beginnings are whole", whole)
		}
	}
}

// TestWrongFrames puts a frame that is wrong behind others: what lies before it is
// given out, and all after it is not.
func TestWrongFrames(t *testing.T) {
	good := packedFrame(t, bytes.Repeat([]byte("good "), 2000), true, true)
	sum := packedFrame(t, bytes.Repeat([]byte("sum "), 2000), true, true)
	sum[len(sum)-1] ^= 1
	sized := packedFrame(t, make([]byte, 3000), true, false)
	if sized[4] != 1<<6|1<<5 { // two bytes of content size
		t.Fatalf("frame header %x", sized[4])
	}
	less, more := bytes.Clone(sized), bytes.Clone(sized)
	binary.LittleEndian.PutUint16(less[5:], 2999-256)
	binary.LittleEndian.PutUint16(more[5:], 3001-256)
	for name, bad := range map[string][]byte{
		"checksum": sum, "content size too small": less, "content size too large": more,
		"window": window(1<<31, text), "a reserved block": {0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 7, 0, 0}, "no frame": []byte("no frame at all, but text"),
		"huge content size": {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0},
	} {
		for _, memory := range []int64{32 << 20, 0} {
			p := small()
			p.memory = buffer.New(memory)
			z, err := p.Stream(t.Context(), bytes.NewReader(bytes.Join([][]byte{good, good, bad, good}, nil)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(z)
			_ = z.Close()
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("%s, %d bytes for batches: %v", name, memory, err)
			}
			if n := len(got); n < 20000 || n > 20000+8000 {
				t.Errorf("%s, %d bytes for batches: %d bytes", name, memory, n)
			}
		}
	}
}

// TestBatchesGiveWayToWindows takes all of the budget while a stream has batches.
func TestBatchesGiveWayToWindows(t *testing.T) {
	var sizes []int
	for range 60 {
		sizes = append(sizes, 100<<10)
	}
	s := manyFrames(t, sizes)
	p := small()
	p.memory = buffer.New(16 << 20)
	z, err := p.Stream(t.Context(), bytes.NewReader(s.packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	ahead := z.d.(*zstdReader).ahead
	var got []byte
	read := func(enough func() bool) {
		t.Helper()
		for !enough() {
			b, err := z.Next()
			if err != nil {
				t.Fatalf("after %d bytes of %d: %v", len(got), len(s.plain), err)
			}
			got = append(got, b...)
		}
	}
	read(func() bool { return ahead.have == 3 })
	if err := p.memory.Charge(t.Context(), 16<<20); err != nil {
		t.Fatal(err)
	}
	read(func() bool { return ahead.have == 0 })
	if p.memory.Short() {
		t.Error("the batches were not given back")
	}
	p.memory.Discharge(16 << 20)
	read(func() bool { return ahead.have == 3 })
	read(func() bool { return len(got) == len(s.plain) })
	if !bytes.Equal(got, s.plain) {
		t.Error("the stream holds something else")
	}
}

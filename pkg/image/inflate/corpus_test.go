package inflate

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// sample is a stream and what it holds.
type sample struct {
	name   string
	packed []byte
	plain  []byte
}

// contents are what is packed: text, code, noise, runs, nothing.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	noise := make([]byte, 300<<10)
	for n := range noise {
		noise[n] = byte(r.Uint32())
	}
	var words strings.Builder
	for words.Len() < 700<<10 {
		words.WriteString([]string{"layer", " of", " an", " image\n", "\t\"digest\": ", "sha256:"}[r.IntN(6)])
		if r.IntN(50) == 0 {
			words.Write(noise[:r.IntN(300)])
		}
	}
	var runs []byte
	for len(runs) < 400<<10 {
		period := noise[r.IntN(1000):][:1+r.IntN(40)]
		runs = append(runs, bytes.Repeat(period, 1+r.IntN(600))...)
	}
	few := make([]byte, 300<<10)
	for n := range few {
		few[n] = noise[n] % 3
	}
	return map[string][]byte{
		"empty": {}, "byte": {'x'}, "noise": noise, "words": []byte(words.String()), "runs": runs, "few symbols": few,
		"zeros": make([]byte, 600<<10), "noise after zeros": append(make([]byte, 70<<10), noise[:100<<10]...),
	}
}

func gzipped(t testing.TB, h gzip.Header, level int, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Header = h
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// member wraps a raw DEFLATE stream of plain.
func wrapped(body, plain []byte) []byte {
	b := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, body...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(b, uint32(len(plain)))
}

// fixedHuffman packs plain in one block of the fixed code, literals alone.
func fixedHuffman(plain []byte) []byte {
	var out []byte
	var bits uint64
	n := 0
	put := func(code uint64, size int) {
		bits |= code << n
		for n += size; n >= 8; n -= 8 {
			out = append(out, byte(bits))
			bits >>= 8
		}
	}
	huff := func(code, size int) { // most significant bit first
		for ; size > 0; size-- {
			put(uint64(code>>(size-1)&1), 1)
		}
	}
	put(1, 1)
	put(1, 2)
	for _, c := range plain {
		if c < 144 {
			huff(0x30+int(c), 8)
		} else {
			huff(0x190+int(c)-144, 9)
		}
	}
	huff(0, 7)
	put(0, 7)
	return out
}

// flushed packs plain with flushes of many sizes: empty stored blocks.
func flushed(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 6)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; len(plain) > 0; n = n*3/2 + 1 {
		n = min(n, len(plain))
		if _, err := w.Write(plain[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		plain = plain[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// corpus is gzip of every form that encoders make.
func corpus(t testing.TB) []sample {
	t.Helper()
	var all []sample
	var members, whole []byte
	for name, plain := range contents() {
		for level, what := range map[int]string{0: "stored", 1: "level 1", 6: "level 6", 9: "level 9", -2: "no matches"} {
			s := sample{name + ", " + what, gzipped(t, gzip.Header{}, level, plain), plain}
			all = append(all, s)
			members, whole = append(members, s.packed...), append(whole, plain...)
		}
		all = append(all,
			sample{name + ", fixed code", wrapped(fixedHuffman(plain), plain), plain},
			sample{name + ", flushed", wrapped(flushed(t, plain), plain), plain})
	}
	all = append(all, sample{"members", members, whole})
	named := gzip.Header{Name: "layer.tar", Comment: "made by a test", Extra: bytes.Repeat([]byte("x"), 60_000)}
	h := gzipped(t, named, 6, []byte("content"))
	all = append(all, sample{"header with all fields", withHeaderCRC(h, len(named.Extra)+len(named.Name)+len(named.Comment)+2+2), []byte("content")})
	return all
}

// withHeaderCRC adds FHCRC to the first header, which has extra bytes of fields.
func withHeaderCRC(b []byte, extra int) []byte {
	n := 10 + extra
	h := append([]byte(nil), b[:n]...)
	h[3] |= 1 << 1
	h = binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h)))
	return append(h, b[n:]...)
}

// zstdCorpus is zstd of every form that encoders make.
func zstdCorpus(t testing.TB) []sample {
	t.Helper()
	var all []sample
	var frames, whole []byte
	skip := []byte{0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 'x', 'x'}
	for name, plain := range contents() {
		for _, options := range [][]zstd.EOption{{}, {zstd.WithEncoderCRC(false)}, {zstd.WithSingleSegment(true)}, {zstd.WithEncoderLevel(zstd.SpeedFastest)}} {
			z, err := zstd.NewWriter(nil, append(options, zstd.WithZeroFrames(true))...)
			if err != nil {
				t.Fatal(err)
			}
			b := z.EncodeAll(plain, nil)
			all = append(all, sample{name, b, plain}, sample{name + ", skippable", append(append(append([]byte(nil), skip...), b...), skip...), plain})
			frames, whole = append(append(frames, b...), skip...), append(whole, plain...)
		}
		var b bytes.Buffer // streamed: no content size
		z, err := zstd.NewWriter(&b, zstd.WithZeroFrames(true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		all = append(all, sample{name + ", streamed", b.Bytes(), plain})
		frames, whole = append(frames, b.Bytes()...), append(whole, plain...)
	}
	return append(all, sample{"frames", frames, whole})
}

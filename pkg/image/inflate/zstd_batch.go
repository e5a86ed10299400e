package inflate

import (
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// batch is some whole frames, and then what they hold.
type batch struct {
	in, out []byte
	z       *zstd.Decoder // absent until there is something to decode

	parts         []part // that have not been read yet
	packed, plain int    // bytes of in and out that are used
	end           int64  // compressed bytes up to the last part's end

	done  chan struct{} // closed once the parts are decoded
	err   error         // after the parts
	begun bool          // something has been read
}

// part is one frame: where it is to be decoded, then what it holds.
type part struct{ packed, plain []byte }

func newBatch(b bounds) *batch {
	return &batch{in: make([]byte, b.packed), out: make([]byte, b.plain), done: make(chan struct{})}
}

func (b *batch) reset() {
	*b = batch{in: b.in, out: b.out, z: b.z, parts: b.parts[:0], done: make(chan struct{})}
}

// add reads all of a frame, or answers false once it is too large for what is left.
func (b *batch) add(f *frame) (bool, error) {
	from := b.packed
	for {
		if f.bound > int64(len(b.out)-b.plain) || b.packed == len(b.in) {
			return false, nil
		}
		n, err := f.Read(b.in[b.packed:])
		b.packed += n
		switch {
		case errors.Is(err, io.EOF):
			end := b.plain + int(f.bound)
			b.parts = append(b.parts, part{packed: b.in[from:b.packed], plain: b.out[b.plain:b.plain:end]})
			b.plain = end
			return true, nil
		case err != nil:
			return false, err
		}
	}
}

// decode decodes the parts up to the first that is wrong.
func (b *batch) decode() {
	defer close(b.done)
	if b.z == nil {
		b.z, b.err = zstd.NewReader(nil, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
	}
	for n := range b.parts {
		if b.err == nil {
			b.parts[n].plain, b.err = b.z.DecodeAll(b.parts[n].packed, b.parts[n].plain)
		}
		if errors.Is(b.err, io.EOF) {
			b.err = io.ErrUnexpectedEOF // the frame is whole, so it is wrong
		}
		if b.err != nil {
			b.parts = b.parts[:n]
			return
		}
	}
}

// read copies what has not been read yet.
func (b *batch) read(p []byte) (n int) {
	for len(b.parts) > 0 {
		m := copy(p[n:], b.parts[0].plain)
		n += m
		if b.parts[0].plain = b.parts[0].plain[m:]; len(b.parts[0].plain) > 0 {
			return n
		}
		b.parts = b.parts[1:]
	}
	return n
}

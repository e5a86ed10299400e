package inflate

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow bounds the memory that a zstd frame may ask for; `zstd --long`
// uses 128 MiB.
const maxZstdWindow = 128 << 20

// skippable reports whether b begins a zstd skippable frame.
func skippable(b []byte) bool {
	return len(b) >= 4 && b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18
}

// zstdReader decodes zstd frames one after the other. It can be marked between
// them.
type zstdReader struct {
	in    *input
	frame *frame // absent between frames
	z     *zstd.Decoder
	buf   []byte
}

func newZstd(in *input, _ *State) (decoder, error) {
	// The decoder's own goroutines cost a fifth more processor time and are no faster
	// than one.
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return &zstdReader{in: in, z: z, buf: make([]byte, piece)}, nil
}

func (z *zstdReader) next() ([]byte, error) {
	if z.frame == nil {
		var err error
		if z.frame, err = nextFrame(z.in); err != nil {
			return nil, err
		}
		if err := z.z.Reset(z.frame); err != nil {
			return nil, err
		}
	}
	n := 0
	for n < len(z.buf) {
		m, err := z.z.Read(z.buf[n:])
		n += m
		switch {
		case err == nil:
			continue
		case z.frame.err != nil && !errors.Is(z.frame.err, io.EOF):
			return nil, z.frame.err
		case !errors.Is(err, io.EOF):
			return nil, err
		case !z.frame.whole():
			return nil, io.ErrUnexpectedEOF
		}
		z.frame = nil
		return z.buf[:n], nil
	}
	return z.buf, nil
}

func (z *zstdReader) position() (int64, bool) {
	if z.frame != nil {
		return 0, false // the decoder reads ahead
	}
	return z.in.offset, true
}

func (z *zstdReader) mark() State { return State{Kind: kindZstd} }
func (z *zstdReader) close()      { z.z.Close() }

// nextFrame opens the next frame that has content, or answers io.EOF where there
// is none.
func nextFrame(in *input) (*frame, error) {
	for {
		b, err := in.peek(zstd.HeaderMaxSize)
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return nil, io.EOF
		}
		var h zstd.Header
		if err := h.Decode(b); err != nil {
			return nil, fmt.Errorf("zstd frame: %w", err)
		}
		if !h.Skippable {
			return &frame{in: in, left: h.HeaderSize, sum: h.HasCheckSum}, nil
		}
		in.skip(h.HeaderSize)
		if n, err := io.CopyN(io.Discard, in, int64(h.SkippableSize)); err != nil {
			return nil, fmt.Errorf("zstd: skippable frame has %d bytes of %d: %w", n, h.SkippableSize, io.ErrUnexpectedEOF)
		}
	}
}

// frame reads one frame as it is: header, blocks, checksum. Only the sizes of
// blocks are looked at.
type frame struct {
	in   *input
	left int // of the part that is being read
	last bool
	sum  bool // a checksum follows
	done bool
	err  error
}

// whole reports whether the frame has been read to its end.
func (f *frame) whole() bool { return f.done && f.left == 0 }

func (f *frame) Read(p []byte) (int, error) {
	if f.left == 0 {
		if f.err = f.part(); f.err != nil {
			return 0, f.err
		}
	}
	if f.whole() {
		return 0, io.EOF
	}
	n, err := f.in.Read(p[:min(len(p), f.left)])
	f.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	f.err = err
	return n, err
}

// part finds how long the next part is.
func (f *frame) part() error {
	switch {
	case f.done:
	case f.last:
		f.done = true
		if f.sum {
			f.left = 4
		}
	default:
		b, err := f.in.peek(3)
		if err != nil {
			return err
		}
		if len(b) < 3 {
			return io.ErrUnexpectedEOF
		}
		// A block's header: last, type (1 is one byte repeated), size.
		h := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		f.last = h&1 == 1
		f.left = 3 + h>>3
		if h>>1&3 == 1 {
			f.left = 3 + 1
		}
	}
	return nil
}

package inflate

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxBlock is the most that a compressed block of zstd holds.
const maxBlock = 128 << 10

// skippable reports whether b begins a zstd skippable frame.
func skippable(b []byte) bool {
	return len(b) >= 4 && b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18
}

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
			return newFrame(in, h), nil
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
	in     *input
	window int64 // more than maxWindow where that is too much
	sized  bool  // it says how much it holds
	bound  int64 // of what it holds, as far as it has been read
	sum    bool  // a checksum follows
	packed int64 // bytes read
	plain  int64 // bytes decoded

	before []byte // what was read, and is to be read again
	left   int    // of the part that is being read
	last   bool
	done   bool
	err    error
}

func newFrame(in *input, h zstd.Header) *frame {
	f := &frame{in: in, left: h.HeaderSize, sum: h.HasCheckSum, sized: h.HasFCS}
	if f.sized {
		f.bound = clamp(h.FrameContentSize)
	}
	f.window = clamp(h.WindowSize)
	if h.SingleSegment {
		f.window = f.bound
	}
	return f
}

// clamp returns a size that an attacker may have chosen as a number to count with.
func clamp(n uint64) int64 { return int64(min(n, 1<<60)) }

// whole reports whether the frame has been read to its end.
func (f *frame) whole() bool { return f.done && f.left == 0 }

func (f *frame) Read(p []byte) (int, error) {
	if len(f.before) > 0 {
		n := copy(p, f.before)
		f.before = f.before[n:]
		return n, nil
	}
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
	f.packed += int64(n)
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
		f.block(int(b[0]) | int(b[1])<<8 | int(b[2])<<16)
	}
	return nil
}

// block looks at a block's header: last, type, size.
func (f *frame) block(h int) {
	const (
		repeated   = 1 // one byte
		compressed = 2
	)
	kind, size := h>>1&3, h>>3
	plain := size
	switch kind {
	case repeated:
		size = 1
	case compressed:
		plain = maxBlock
	}
	f.last, f.left = h&1 == 1, 3+size
	if !f.sized {
		f.bound += int64(plain)
	}
}

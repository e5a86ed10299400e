package inflate

import (
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdReader decodes zstd frames: large ones one after the other, small ones in
// batches beside each other. It can be marked behind each of these.
type zstdReader struct {
	ctx  context.Context //nolint:containedctx // of the stream that the reader is for
	in   *input
	pool *Pool

	buf, own []byte // own is buf where no other was given, once it is needed
	end      int    // of what is decoded in buf
	offset   int64  // compressed bytes before what comes next, if not inside

	ahead  *ahead
	frame  *frame // that is decoded alone
	z      *zstd.Decoder
	window int64 // the largest that z has had; what is beyond freeWindow is charged
}

func newZstd(ctx context.Context, in *input, pool *Pool) decoder {
	return &zstdReader{ctx: ctx, in: in, pool: pool, offset: in.offset, ahead: newAhead(in, pool)}
}

// full reports whether buf has no room left.
func (z *zstdReader) full() bool { return z.end == len(z.buf) }

// place goes on in buf.
func (z *zstdReader) place(buf []byte) int {
	z.buf, z.end = buf, 0
	return 0
}

func (z *zstdReader) next() ([]byte, error) {
	if z.full() {
		if z.own == nil {
			z.own = make([]byte, piece)
		}
		z.place(z.own)
	}
	if z.frame == nil {
		if err := z.advance(); err != nil {
			return nil, err
		}
	}
	began := z.end
	var err error
	if z.frame != nil {
		err = z.decode()
	} else {
		var n int
		n, err = z.ahead.read(z.buf[z.end:])
		z.end += n
		z.offset = z.ahead.offset
	}
	return z.buf[began:z.end], err
}

// advance has batches decoded, or else begins with a frame.
func (z *zstdReader) advance() error {
	z.ahead.fill()
	if z.ahead.any() {
		return nil
	}
	f, err := z.ahead.alone()
	if err != nil {
		return err
	}
	if err := z.admit(f.window); err != nil {
		return err
	}
	if z.z == nil {
		if z.z, err = z.pool.take(); err != nil {
			return err
		}
	}
	z.window = max(z.window, f.window)
	z.frame = f
	return z.z.Reset(f)
}

// admit makes sure that a window may be had. Who waits for one holds none.
func (z *zstdReader) admit(window int64) error {
	switch {
	case window > maxWindow:
		return zstd.ErrWindowSizeExceeded
	case window <= max(freeWindow, z.window):
		return nil
	}
	z.drop()
	if err := z.pool.admit(z.ctx, window); err != nil {
		z.in.err = err // the stream is not to blame
		return err
	}
	z.window = window
	return nil
}

// drop gives the decoder and its window back.
func (z *zstdReader) drop() {
	if z.z != nil {
		z.pool.put(z.z, z.window <= freeWindow)
		z.z = nil
	}
	if z.window > freeWindow {
		z.pool.memory.Discharge(z.window)
	}
	z.window = 0
}

// decode decodes until buf is full or the frame has ended.
func (z *zstdReader) decode() error {
	for !z.full() {
		n, err := z.z.Read(z.buf[z.end:])
		z.end += n
		z.frame.plain += int64(n)
		switch {
		case err == nil:
			continue
		case z.frame.err != nil && !errors.Is(z.frame.err, io.EOF):
			return z.frame.err
		case !errors.Is(err, io.EOF):
			return err
		case !z.frame.whole():
			return io.ErrUnexpectedEOF
		}
		z.ahead.learn(z.frame)
		z.frame, z.offset = nil, z.in.offset
		return nil
	}
	return nil
}

func (z *zstdReader) position() (int64, bool) {
	return z.offset, z.frame == nil && !z.ahead.inside()
}

func (z *zstdReader) mark() State { return State{Kind: kindZstd} }

func (z *zstdReader) close() {
	z.ahead.close()
	z.frame = nil
	z.drop()
}

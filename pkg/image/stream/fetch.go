package stream

import (
	"context"
	"io"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/buffer"
)

// chunk is some compressed bytes.
type chunk struct {
	buf  *buffer.Buffer
	n    int
	from blob.Position // before them
	err  error         // after them
}

// fetch is the first stage.
func (l *Stream) fetch(ctx context.Context, v *blob.Verifier) {
	defer close(l.chunks)
	for {
		buf, err := l.packed.Get(ctx)
		if err != nil {
			return // ctx has ended, which the next stage sees
		}
		c := chunk{buf: buf}
		if c.from, c.err = v.Position(); c.err == nil {
			c.n, c.err = fill(v, buf[:])
		}
		if l.src.Keep != nil {
			if _, err := l.src.Keep.Write(buf[:c.n]); err != nil {
				c.err = err
			}
		}
		select {
		case l.chunks <- c:
		case <-ctx.Done():
			return
		}
		if c.err != nil {
			return
		}
	}
}

// fill reads until p is full, or until an error, which is io.EOF at the end.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// chunkReader reads chunks, and gives their buffers back.
type chunkReader struct {
	ctx    context.Context //nolint:containedctx // of the stage that the reader is for
	chunks <-chan chunk
	lease  *buffer.Lease
	chunk  chunk
	at     int
	skip   int64           // bytes that are left out
	starts []blob.Position // of the last chunks
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	for r.at == r.chunk.n {
		if r.chunk.buf != nil {
			r.lease.Put(r.chunk.buf)
			r.chunk.buf = nil
		}
		if r.chunk.err != nil {
			return 0, r.chunk.err
		}
		next, ok := <-r.chunks
		if !ok {
			return 0, context.Cause(r.ctx)
		}
		r.starts = append(r.starts, next.from)
		r.chunk, r.at = next, int(min(r.skip, int64(next.n)))
		r.skip -= int64(r.at)
	}
	n := copy(p, r.chunk.buf[r.at:r.chunk.n])
	r.at += n
	return n, nil
}

// before returns the last position, at or before offset, of which the hash is
// known.
func (r *chunkReader) before(offset int64) blob.Position {
	for len(r.starts) > 1 && r.starts[1].Offset <= offset {
		r.starts = r.starts[1:]
	}
	return r.starts[0]
}

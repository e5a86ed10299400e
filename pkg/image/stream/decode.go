package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/buffer"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
)

// piece is some plain bytes.
type piece struct {
	buf     *buffer.Buffer
	at, end int
	mark    *layer.Mark // after them
}

// inflate is the second stage.
func (l *Stream) inflate(ctx context.Context, d decoding) {
	defer close(l.pieces)
	l.inflated = d.run(ctx)
}

// decoding is the second stage's work.
type decoding struct {
	l      *Stream
	in     *chunkReader
	z      *inflate.Reader // absent at the beginning
	plain  int64           // bytes decoded
	marked int64           // compressed bytes before the last mark
	out    piece
	placed bool // z decodes into out
}

// decoding begins the second stage's work.
func (l *Stream) decoding(ctx context.Context, st state, plain int64) (decoding, error) {
	d := decoding{l: l, in: &chunkReader{ctx: ctx, chunks: l.chunks, lease: l.packed}, plain: plain}
	if st.Version == 0 {
		return d, nil
	}
	d.in.skip, d.marked = st.Decoder.Offset-st.Packed.Offset, st.Decoder.Offset
	var err error
	d.z, err = l.decoders.Resume(ctx, d.in, st.Decoder)
	return d, err
}

func (d *decoding) run(ctx context.Context) error {
	if d.z == nil {
		var err error
		if d.z, err = d.l.decoders.Stream(ctx, d.in); err != nil {
			return err
		}
	}
	defer d.z.Close()
	for {
		if err := d.room(ctx); err != nil {
			return err
		}
		p, err := d.z.Next()
		if err != nil {
			return d.finish(ctx, err)
		}
		if err := d.put(ctx, p); err != nil {
			return err
		}
		if err := d.mark(ctx); err != nil {
			return err
		}
	}
}

// finish passes on what is left. The stream has ended well only if its blob has.
func (d *decoding) finish(ctx context.Context, end error) error {
	if err := d.send(ctx); err != nil {
		return err
	}
	if !errors.Is(end, io.EOF) {
		return end
	}
	n, err := d.in.Read(make([]byte, 1))
	if n > 0 {
		return fmt.Errorf("blob goes on after its compressed stream: %w", errs.Invalid)
	}
	return err
}

// room makes room for what comes next. A buffer that was passed on is read by
// others and had again by none but this goroutine, so the decoder's history stays
// in it until then.
func (d *decoding) room(ctx context.Context) (err error) {
	if d.out.buf != nil && (d.out.end == buffer.Size || d.placed && d.z.Full()) {
		if err := d.send(ctx); err != nil {
			return err
		}
	}
	if d.out.buf == nil {
		if d.out.buf, err = d.l.plain.Get(ctx); err != nil {
			return err
		}
		d.out.at, d.placed = d.z.Place(d.out.buf[:])
		d.out.end = d.out.at
	}
	return nil
}

// put adds plain bytes to the buffer, where they may lie already.
func (d *decoding) put(ctx context.Context, p []byte) error {
	d.plain += int64(len(p))
	if d.placed {
		d.out.end += len(p)
		return nil
	}
	for len(p) > 0 {
		if err := d.room(ctx); err != nil {
			return err
		}
		n := copy(d.out.buf[d.out.end:], p)
		d.out.end += n
		p = p[n:]
	}
	return nil
}

// mark marks the place if it is one, and far enough from the last.
func (d *decoding) mark(ctx context.Context) error {
	at, ok := d.z.Position()
	if !ok || d.l.src.Keep != nil || at-d.marked < markStep {
		return nil
	}
	st := state{Version: stateVersion, Blob: d.l.src.Blob.Digest.String(), Packed: d.in.before(at), Decoder: d.z.Mark()}
	text, err := json.Marshal(st)
	if err != nil {
		return err
	}
	d.marked, d.out.mark = at, &layer.Mark{Offset: d.plain, State: text}
	return d.send(ctx)
}

func (d *decoding) send(ctx context.Context) error {
	p := d.out
	d.out = piece{}
	select {
	case d.l.pieces <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

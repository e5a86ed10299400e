// Package inflate decompresses what registries and archives send, in bounded
// memory.
//
// A gzip stream is decoded by deflate.c, or by Go where there is no cgo: both
// take and refuse what Go's compress/gzip does, so bytes after the last member
// are an error, zeros too. A zstd stream is decoded frame by frame, or many small
// frames beside each other, each batch in a goroutine that Reader.Close waits for.
// Both can be opened again in the middle: see Reader.Mark.
//
// A stream waits for a large window only while it holds none, and for no stream that
// waits for one, so streams end in any order.
package inflate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/berth-run/berth/pkg/errs"
)

var (
	gzipMagic  = []byte{0x1f, 0x8b}
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzip2Magic = []byte("BZh")
)

// piece is about how much is decoded at a time.
const piece = 256 << 10

// Reader gives the plain form of a stream. It is for one goroutine.
type Reader struct {
	in   *input
	d    decoder
	left []byte // decoded, and not read yet
	err  error
}

// decoder decodes one kind of stream.
type decoder interface {
	// next returns the next plain bytes, maybe none, which are its own until it is
	// called again, and io.EOF at the end.
	next() ([]byte, error)
	// position returns how many compressed bytes lie before what next will return,
	// where the stream can be opened again there; false where it cannot.
	position() (int64, bool)
	// mark returns the state at such a position, but for its offset.
	mark() State
	close()
}

// placer is a decoder that can decode into buffers that it is given.
type placer interface {
	full() bool
	place(buf []byte) int
}

// Stream returns the plain form of a gzip, zstd or plain stream, told apart
// by its first bytes and not by what a manifest says. The caller closes it,
// which leaves r open. ctx ends waits for memory. What is wrong with the stream is
// an error of kind Invalid, or Unsupported for another compression; errors of r
// itself stay as they are.
func (p *Pool) Stream(ctx context.Context, r io.Reader) (*Reader, error) {
	in := newInput(r)
	head, err := in.peek(6)
	if err != nil {
		return nil, err
	}
	z := &Reader{in: in}
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		z.d, err = newGzip(in, nil)
	case bytes.HasPrefix(head, zstdMagic), skippable(head):
		z.d = newZstd(ctx, in, p)
	case bytes.HasPrefix(head, xzMagic), bytes.HasPrefix(head, bzip2Magic):
		return nil, fmt.Errorf("compression is neither gzip nor zstd: %w", errs.Unsupported)
	default:
		z.d = &plain{in: in}
	}
	if err != nil {
		return nil, z.blame(err)
	}
	return z, nil
}

// Resume goes on with a stream whose Mark gave state, from r, which begins at
// State.Offset of the same stream. An error of kind Unsupported says that the
// state is another version's or decoder's: the stream must be read from its
// beginning.
func (p *Pool) Resume(ctx context.Context, r io.Reader, state State) (*Reader, error) {
	if state.Version != stateVersion {
		return nil, fmt.Errorf("state of a decoder of version %d: %w", state.Version, errs.Unsupported)
	}
	z := &Reader{in: newInput(r)}
	z.in.offset = state.Offset
	var err error
	switch state.Kind {
	case kindGzip:
		z.d, err = newGzip(z.in, &state)
	case kindZstd:
		z.d = newZstd(ctx, z.in, p)
	case kindPlain:
		z.d = &plain{in: z.in}
	default:
		err = fmt.Errorf("state of decoder %.20q: %w", state.Kind, errs.Unsupported)
	}
	if err != nil {
		return nil, z.blame(err)
	}
	return z, nil
}

// Next returns the next plain bytes, maybe none, which are valid until the next
// call, and io.EOF at the end. Use either Next or Read.
func (z *Reader) Next() ([]byte, error) {
	if z.err != nil {
		return nil, z.err
	}
	p, err := z.d.next()
	if err != nil && !errors.Is(err, io.EOF) {
		err = z.blame(err)
	}
	z.err = err
	return p, err
}

// Full reports whether Place must give the decoder room, or else what Next
// returns will be the decoder's own.
func (z *Reader) Full() bool {
	p, ok := z.d.(placer)
	return ok && p.full()
}

// Place has what Next returns lie in buf, one piece behind the other from at on,
// until the decoder is full. What lies before at is history, up to 32 KiB, to which
// buf adds 1 KiB or more. Others may read buf, but nobody may change it before the
// next call has returned. Where the decoder does not place, placed is false.
func (z *Reader) Place(buf []byte) (at int, placed bool) {
	p, ok := z.d.(placer)
	if !ok {
		return 0, false
	}
	return p.place(buf), true
}

// Read implements io.Reader.
func (z *Reader) Read(p []byte) (int, error) {
	for len(z.left) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		z.left, _ = z.Next() // its error is kept
	}
	n := copy(p, z.left)
	z.left = z.left[n:]
	return n, nil
}

// Position returns how many compressed bytes lie before what Next will return,
// if Mark may be called there.
func (z *Reader) Position() (int64, bool) {
	if z.err != nil {
		return 0, false
	}
	return z.d.position()
}

// Mark returns what Resume needs to open the stream again at its Position. It
// may be called only where there is one.
func (z *Reader) Mark() State {
	s := z.d.mark()
	s.Version = stateVersion
	s.Offset, _ = z.d.position()
	return s
}

// Close gives back what the decoder holds.
func (z *Reader) Close() error {
	if z.err == nil {
		z.err = errors.New("stream is closed")
	}
	z.d.close()
	return nil
}

// blame gives a decoder's error its kind, or returns the source's own.
func (z *Reader) blame(err error) error {
	switch {
	case z.in.err != nil:
		err = z.in.err
	case errs.Of(err) == "":
		err = fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	return fmt.Errorf("decompress: %w", err)
}

// plain passes on a stream that is not compressed.
type plain struct{ in *input }

func (p *plain) next() ([]byte, error) {
	if len(p.in.rest()) == 0 {
		if err := p.in.more(); err != nil {
			return nil, err
		}
	}
	b := p.in.rest()
	p.in.skip(len(b))
	return b, nil
}

func (p *plain) position() (int64, bool) { return p.in.offset, true }
func (p *plain) mark() State             { return State{Kind: kindPlain} }
func (p *plain) close()                  {}

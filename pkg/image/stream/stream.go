// Package stream brings a layer from its blob to its tar stream, in stages that
// run beside each other:
//
//	fetch: reads, hashes, keeps  ──chunks──▶  inflate  ──pieces──▶  Read
//
// Each stage is one goroutine and the only one to write what the next reads. Both
// end when the stream does: at its end, at an error, at Close.
//
// Now and then a stream has a mark, from which another one can go on, in another
// process too: the decoder's state and that of the digest. So all of a blob is
// verified, however many streams have read it.
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/belt"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/buffer"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
)

const (
	// ownBuffers is how many of the pool's buffers each stage has whatever others
	// have, and mostBuffers how many it may have.
	ownBuffers, mostBuffers = 2, 8
	// markStep is about how many compressed bytes lie between two marks.
	markStep     = 1 << 20
	stateVersion = 1
)

// Source is where a blob comes from.
type Source struct {
	Blob ispec.Descriptor
	// Open opens the blob from an offset in bytes on. What it returns is closed
	// with the stream; reading it ends when ctx does.
	Open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	// Keep is told the blob as it comes, committed at its end and closed with the
	// stream. A stream that keeps its blob begins at the beginning and has no marks.
	Keep *blob.Writer
}

// Stream is a layer's tar stream. It is for one goroutine.
type Stream struct {
	src    Source
	cancel context.CancelFunc
	work   sync.WaitGroup
	body   io.ReadCloser // absent until it is open

	decoders *inflate.Pool

	packed *buffer.Lease
	chunks chan chunk

	plain    *buffer.Lease
	pieces   chan piece
	inflated error // why pieces is closed

	rest   piece // what is being read
	last   layer.Mark
	marked bool
	end    error
	closed bool
}

var (
	_ layer.Stream = (*Stream)(nil)
	_ belt.Lender  = (*Stream)(nil)
)

// state is what a mark's state holds: the blob is read again from Packed on,
// which lies at or before where the decoder goes on.
type state struct {
	Version int           `json:"version"`
	Blob    string        `json:"blob"`
	Packed  blob.Position `json:"packed"`
	Decoder inflate.State `json:"decoder"`
}

// Open opens a stream, at a mark of an earlier one if from has one. Its end is
// reached only if the blob's digest and size were right, of the part before the
// mark too. A mark of another blob or version is an error of kind Unsupported: the
// layer must begin anew. ctx is the stream's, until it is closed. The source's
// Keep is closed by Open where it fails.
func Open(ctx context.Context, pool *inflate.Pool, src Source, from layer.Mark) (*Stream, error) {
	st, err := src.state(from)
	if err != nil {
		return nil, errors.Join(err, src.drop())
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Stream{src: src, cancel: cancel, decoders: pool}
	l.packed, l.plain = pool.Buffers().Lease(ownBuffers, mostBuffers), pool.Buffers().Lease(ownBuffers, mostBuffers)
	l.chunks, l.pieces = make(chan chunk, mostBuffers), make(chan piece, mostBuffers)
	if err := l.begin(ctx, st, from.Offset); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// begin opens the blob and starts to work.
func (l *Stream) begin(ctx context.Context, st state, plain int64) error {
	d, err := l.decoding(ctx, st, plain)
	if err != nil {
		return err
	}
	if l.body, err = l.src.Open(ctx, st.Packed.Offset); err != nil {
		return err
	}
	v := blob.NewVerifier(l.body, l.src.Blob.Digest, l.src.Blob.Size)
	if st.Version != 0 {
		if err := v.Resume(st.Packed); err != nil {
			return err
		}
	}
	l.work.Go(func() { l.fetch(ctx, v) })
	l.work.Go(func() { l.inflate(ctx, d) })
	return nil
}

// state reads a mark; that of the beginning has no version.
func (s Source) state(from layer.Mark) (st state, err error) {
	if from.Offset == 0 && len(from.State) == 0 {
		return state{}, nil
	}
	if s.Keep != nil || json.Unmarshal(from.State, &st) != nil || st.Version != stateVersion ||
		st.Blob != s.Blob.Digest.String() || st.Packed.Offset < 0 || st.Packed.Offset > st.Decoder.Offset || st.Decoder.Offset > s.Blob.Size {
		return state{}, fmt.Errorf("no mark in blob %s: %w", s.Blob.Digest, errs.Unsupported)
	}
	return st, nil
}

// drop closes what a stream that was not opened would have kept.
func (s Source) drop() error {
	if s.Keep == nil {
		return nil
	}
	return s.Keep.Close()
}

// Read implements io.Reader.
func (l *Stream) Read(p []byte) (int, error) {
	for l.rest.at == l.rest.end {
		l.used()
		if l.end != nil {
			return 0, l.end
		}
		next, ok := <-l.pieces
		if !ok {
			l.end = l.finish()
		}
		l.rest = next
	}
	n := copy(p, l.rest.buf[l.rest.at:l.rest.end])
	l.rest.at += n
	if l.rest.at == l.rest.end {
		l.used()
	}
	return n, nil
}

// Lend implements belt.Lender.
func (l *Stream) Lend() (p []byte, back func(), err error) {
	for l.rest.at == l.rest.end {
		l.used()
		if l.end != nil {
			return nil, nil, l.end
		}
		next, ok := <-l.pieces
		if !ok {
			l.end = l.finish()
		}
		l.rest = next
	}
	lent := l.rest
	l.rest.buf = nil // goes back later
	l.used()
	return lent.buf[lent.at:lent.end], func() { l.plain.Put(lent.buf) }, nil
}

// used gives back a piece that has been read.
func (l *Stream) used() {
	if l.rest.mark != nil {
		l.last, l.marked = *l.rest.mark, true
	}
	if l.rest.buf != nil {
		l.plain.Put(l.rest.buf)
	}
	l.rest = piece{}
}

// finish keeps the blob, which has been verified, once all of it has been read.
func (l *Stream) finish() error {
	if !errors.Is(l.inflated, io.EOF) || l.src.Keep == nil {
		return l.inflated
	}
	l.work.Wait()
	if err := l.src.Keep.Commit(); err != nil {
		return err
	}
	return io.EOF
}

// Mark implements layer.Stream.
func (l *Stream) Mark() (layer.Mark, bool) { return l.last, l.marked }

// Close ends the stages and gives everything back; a blob that was not read to its
// end is dropped.
func (l *Stream) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	l.cancel()
	l.work.Wait()
	l.rest, l.end = piece{}, errors.New("layer stream is closed")
	l.packed.Close()
	l.plain.Close()
	err := l.src.drop()
	if l.body != nil {
		err = errors.Join(err, l.body.Close())
	}
	return err
}

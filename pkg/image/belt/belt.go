// Package belt carries a layer's tar stream past those who look at it: one goroutine
// hashes, one indexes, and the caller writes.
//
//	read ─▶ chunk ─┬─▶ hash
//	               ├─▶ scan
//	               └─▶ write (the caller)
//
// A belt's goroutines live from New to End.
package belt

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/digester"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/tree"
)

// maxTail bounds what may follow the end of a tar stream: padding.
const maxTail = 64 << 20

const (
	chunkSize  = 1 << 20
	chunkCount = 6 // of one stream in memory
)

// Belt is one stream on its way. It is for one goroutine.
type Belt struct {
	free, hash, scan chan *chunk
	hashed           hash.Hash
	diffID           digest.Digest
	total            int64 // bytes carried
	done             sync.WaitGroup

	// Set by scan, valid once it has ended.
	index *tree.Index
	last  int64 // the end of the archive in the stream
	err   error
}

// chunk is a piece of the stream that goes back when all have seen it.
type chunk struct {
	data  []byte
	users atomic.Int32
	back  func() // absent where it is the belt's own
}

// New starts the goroutines, which End ends. cancel is called where the stream is no
// layer.
func New(diffID digest.Digest, limits entry.Limits, cancel context.CancelCauseFunc) *Belt {
	b := &Belt{
		free: make(chan *chunk, chunkCount), hash: make(chan *chunk, chunkCount), scan: make(chan *chunk, chunkCount),
		diffID: diffID, hashed: digester.New(diffID.Algorithm()),
	}
	for range chunkCount {
		b.free <- &chunk{}
	}
	b.done.Go(func() {
		for c := range b.hash {
			_, _ = b.hashed.Write(c.data) // a hash never fails
			b.release(c)
		}
	})
	b.done.Go(func() {
		f := &feed{belt: b}
		if b.index, b.err = tree.Scan(f, limits); b.err != nil {
			cancel(b.err)
		}
		b.last = f.offset
		f.drain()
	})
	return b
}

func (b *Belt) release(c *chunk) {
	switch {
	case c.users.Add(-1) > 0:
	case c.back != nil:
		c.back()
	default:
		b.free <- c
	}
}

// Carry reads r to its end and passes it on, to use too.
func (b *Belt) Carry(r io.Reader, use func([]byte) error) error {
	for {
		c := <-b.free
		if c.data == nil { // not before it is needed: most streams lend theirs
			c.data = make([]byte, chunkSize)
		}
		n, err := fill(r, c.data[:chunkSize])
		c.data = c.data[:n]
		if bad := b.pass(c, use); bad != nil {
			err = bad
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// pass gives a chunk to all that look.
func (b *Belt) pass(c *chunk, use func([]byte) error) error {
	c.users.Store(3)
	b.total += int64(len(c.data))
	b.hash <- c
	b.scan <- c
	defer b.release(c)
	if use == nil {
		return nil
	}
	return use(c.data)
}

// Lender is a stream that lends its bytes, which saves a copy of each.
type Lender interface {
	// Lend returns some of the bytes that come next, or an error, which is io.EOF at
	// the end. The caller calls back once, from any goroutine, when it does not need
	// them any more, after the stream was closed too.
	Lend() (p []byte, back func(), err error)
}

// CarryLent is Carry for a stream that lends its bytes.
func (b *Belt) CarryLent(ctx context.Context, l Lender, use func([]byte) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, back, err := l.Lend()
		if err == nil {
			err = b.pass(&chunk{data: data, back: back}, use)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// fill is io.ReadFull that leaves r's error as it is.
func fill(r io.Reader, p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := r.Read(p[done:])
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// End waits for all that look and returns the index, where the stream came to its
// end and was right.
func (b *Belt) End(whole bool) (*tree.Index, error) {
	close(b.hash)
	close(b.scan)
	b.done.Wait()
	switch {
	case b.err != nil:
		return nil, b.err
	case !whole:
		return nil, nil
	case b.total-b.last >= maxTail:
		return nil, fmt.Errorf("%s: more than %d bytes after its end: %w", b.diffID, maxTail, errs.Invalid)
	case digest.NewDigest(b.diffID.Algorithm(), b.hashed) != b.diffID:
		return nil, fmt.Errorf("%s: its %d bytes have another digest: %w", b.diffID, b.total, blob.ErrMismatch)
	}
	return b.index, nil
}

// feed reads what comes by as the tar reader wants it.
type feed struct {
	belt   *Belt
	chunk  *chunk
	rest   []byte
	offset int64
}

// next takes the next chunk; false at the end.
func (f *feed) next() bool {
	for len(f.rest) == 0 {
		if f.chunk != nil {
			f.belt.release(f.chunk)
			f.chunk = nil
		}
		c, ok := <-f.belt.scan
		if !ok {
			return false
		}
		f.chunk, f.rest = c, c.data
	}
	return true
}

// Read implements io.Reader.
func (f *feed) Read(p []byte) (int, error) {
	if !f.next() {
		return 0, io.EOF
	}
	n := copy(p, f.rest)
	f.rest, f.offset = f.rest[n:], f.offset+int64(n)
	return n, nil
}

// Seek implements io.Seeker forward from where it is.
func (f *feed) Seek(n int64, _ int) (int64, error) {
	for n > 0 && f.next() {
		step := min(n, int64(len(f.rest)))
		f.rest, f.offset, n = f.rest[step:], f.offset+step, n-step
	}
	return f.offset, nil
}

// drain takes what is left.
func (f *feed) drain() {
	for f.rest = nil; f.next(); f.rest = nil {
	}
}

// Read returns the index of a stream that is here. One that is no layer any more is
// not what it was: the error wraps blob.ErrMismatch.
func Read(diffID digest.Digest, r io.Reader, limits entry.Limits) (*tree.Index, error) {
	b := New(diffID, limits, func(error) {})
	err := b.Carry(r, nil)
	x, ended := b.End(err == nil)
	if err == nil {
		err = ended
	}
	if errs.Of(err) == errs.Invalid && !errors.Is(err, blob.ErrMismatch) {
		err = fmt.Errorf("layer %s: %w: %w", diffID, err, blob.ErrMismatch)
	}
	return x, err
}

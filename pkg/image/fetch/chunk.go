package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// blockSize is how much of a chunk is passed on at once.
const blockSize = 256 << 10

// chunk is a part of the blob on its way. It is its goroutine's but for blocks, which
// the reader takes.
type chunk struct {
	pos, end int64           // where the next byte goes, and the end
	part     []byte          // the block that pos lies in, as far as it has come
	blocks   chan []byte     // in order, with room for all; closed at the end
	done     chan struct{}   // closed when it and all before it have come
	before   <-chan struct{} // done of the chunk before
	// connected says that it has a connection of the budget.
	connected bool
}

func newChunk(from, end int64, before <-chan struct{}) *chunk {
	n := (end - from + blockSize - 1) / blockSize
	return &chunk{pos: from, end: end, blocks: make(chan []byte, n), done: make(chan struct{}), before: before}
}

// room returns where the next bytes go.
func (c *chunk) room(p *pool) []byte {
	if c.part == nil {
		c.part = p.take(int(min(c.end-c.pos, blockSize)))[:0]
	}
	return c.part[len(c.part):min(int64(cap(c.part)), int64(len(c.part))+c.end-c.pos)]
}

// came notes n more bytes in what room returned.
func (c *chunk) came(n int) {
	c.part = c.part[:len(c.part)+n]
	c.pos += int64(n)
	if len(c.part) == cap(c.part) || c.pos == c.end {
		c.blocks <- c.part
		c.part = nil
	}
}

// pool keeps blocks for the next chunk.
type pool struct{ blocks sync.Pool }

func (p *pool) take(n int) []byte {
	if n < blockSize {
		return make([]byte, n)
	}
	if b, ok := p.blocks.Get().(*[blockSize]byte); ok {
		return b[:]
	}
	return make([]byte, blockSize)
}

func (p *pool) give(b []byte) {
	if cap(b) == blockSize {
		p.blocks.Put((*[blockSize]byte)(b[:blockSize]))
	}
}

// stream is a body that is being read.
type stream struct {
	body     io.ReadCloser
	pos, end int64 // of the blob: reached, and where the body must end
	host     *host
	watch    *watch
	ctx      context.Context //nolint:containedctx // of this one body
	cancel   context.CancelCauseFunc
}

func (s *stream) close() {
	_ = s.body.Close() // only read
	s.cancel(nil)
}

// read reads once. The watch runs.
func (s *stream) read(p []byte) (int, error) {
	n, err := s.body.Read(p[:min(int64(len(p)), s.end-s.pos)])
	s.watch.add(n)
	s.pos += int64(n)
	switch {
	case s.pos == s.end:
		err = nil
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("the body ended %d bytes early: %w", s.end-s.pos, io.ErrUnexpectedEOF)
	case err != nil:
		err = because(s.ctx, err)
	}
	return n, err
}

// skip reads up to a position.
func (s *stream) skip(to int64, p *pool) error {
	b := p.take(blockSize)
	defer p.give(b)
	for s.pos < to {
		if _, err := s.read(b[:min(blockSize, to-s.pos)]); err != nil {
			return err
		}
	}
	return nil
}

// because prefers the reason for which a request was ended.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// backoff is the pause before the n-th new attempt: doubled each time, with
// jitter so that what failed together does not come back together.
func backoff(n int, random func() float64) time.Duration {
	d := min(firstPause<<min(n-1, 16), longestPause)
	return time.Duration(float64(d) * (0.5 + random()))
}

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
)

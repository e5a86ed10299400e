// Package buffer lends the buffers that layers pass through on their way from a
// registry to the disk, all of them within one budget. A stream has its own few
// whatever the others have, so a large image never keeps a small one waiting;
// only what makes it faster comes from the budget. Buffers that nobody uses are
// left to the garbage collector.
package buffer

import (
	"context"
	"sync"
	"sync/atomic"
)

// Size of each buffer, in bytes.
const Size = 256 << 10

// Buffer is one buffer.
type Buffer [Size]byte

// Pool is the budget. It is safe for concurrent use.
type Pool struct {
	spare   atomic.Int64 // buffers that may still be taken from the budget
	buffers sync.Pool
}

// New makes a pool with a budget in bytes.
func New(budget int64) *Pool {
	p := &Pool{}
	p.spare.Store(max(budget, 0) / Size)
	return p
}

// take takes one buffer from the budget, if there is one.
func (p *Pool) take() bool {
	if p.spare.Add(-1) >= 0 {
		return true
	}
	p.spare.Add(1)
	return false
}

// Lease is the buffers of one stage of a stream: one goroutine gets them, any
// may put them back.
type Lease struct {
	pool      *Pool
	free      chan *Buffer
	own, have int // have is of the goroutine that gets
}

// Lease begins a lease of own buffers, and up to most as long as the budget has
// some.
func (p *Pool) Lease(own, most int) *Lease {
	return &Lease{pool: p, free: make(chan *Buffer, most), own: own}
}

// Get returns a buffer, and waits until one is put back where there is no other.
func (l *Lease) Get(ctx context.Context) (*Buffer, error) {
	select {
	case b := <-l.free:
		return b, nil
	default:
	}
	if l.have < l.own || l.have < cap(l.free) && l.pool.take() {
		l.have++
		if b, ok := l.pool.buffers.Get().(*Buffer); ok {
			return b, nil
		}
		return new(Buffer), nil
	}
	select {
	case b := <-l.free:
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Put gives a buffer back, which must not be used any more.
func (l *Lease) Put(b *Buffer) { l.free <- b }

// Close ends the lease. Nobody may get buffers any more; those that were not put
// back, or are put back later, are dropped.
func (l *Lease) Close() {
	l.pool.spare.Add(int64(max(l.have-l.own, 0)))
	l.have = 0
	for {
		select {
		case b := <-l.free:
			l.pool.buffers.Put(b)
		default:
			return
		}
	}
}

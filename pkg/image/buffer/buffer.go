// Package buffer lends the buffers that layers pass through on their way from a
// registry to the disk, all of them within one budget. A stream has its own few
// whatever the others have, so a large image never keeps a small one waiting;
// only what makes it faster comes from the budget, and what some streams cannot do
// without: for that alone they wait for each other. Buffers that nobody uses are
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
	budget  int64
	spare   atomic.Int64 // buffers that may still be taken from the budget; less than none while it is Short
	buffers sync.Pool
	large   large
}

// New makes a pool with a budget in bytes.
func New(budget int64) *Pool {
	p := &Pool{budget: max(budget, 0)}
	p.spare.Store(p.budget / Size)
	return p
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
	for {
		b, err := l.get(ctx)
		if err != nil || l.have <= l.own || !l.pool.Short() {
			return b, err
		}
		l.have--
		l.pool.Return(Size)
	}
}

func (l *Lease) get(ctx context.Context) (*Buffer, error) {
	select {
	case b := <-l.free:
		return b, nil
	default:
	}
	if l.have < l.own || l.have < cap(l.free) && l.pool.Borrow(Size) {
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

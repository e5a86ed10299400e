package buffer

import (
	"context"
	"slices"
	"sync"
)

// large is what the pool has lent to those who cannot do without it.
type large struct {
	mu    sync.Mutex
	held  int64    // bytes
	queue []*claim // by arrival
}

// claim is a Charge that waits.
type claim struct {
	n     int64
	given chan struct{}
}

// Charge takes n bytes of the budget, and waits while what others have charged
// leaves too little; who comes first is served first. More than the whole budget
// is given to one that has all of it. Buffers are not waited for: they become
// fewer, from the next Get on. Who holds a charge must not wait for another.
func (p *Pool) Charge(ctx context.Context, n int64) error {
	c := &claim{n: n, given: make(chan struct{})}
	l := &p.large
	l.mu.Lock()
	l.queue = append(l.queue, c)
	p.serveLocked()
	l.mu.Unlock()
	select {
	case <-c.given:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-c.given: // meanwhile
		p.giveLocked(n)
	default:
		l.queue = slices.DeleteFunc(l.queue, func(o *claim) bool { return o == c })
		p.serveLocked()
	}
	return context.Cause(ctx)
}

// Discharge gives n bytes back that Charge took.
func (p *Pool) Discharge(n int64) {
	p.large.mu.Lock()
	defer p.large.mu.Unlock()
	p.giveLocked(n)
}

func (p *Pool) giveLocked(n int64) {
	p.large.held -= n
	p.spare.Add(units(n))
	p.serveLocked()
}

func (p *Pool) serveLocked() {
	l := &p.large
	for len(l.queue) > 0 && (l.held == 0 || l.held+l.queue[0].n <= p.budget) {
		c := l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1)
		l.held += c.n
		p.spare.Add(-units(c.n))
		close(c.given)
	}
}

// Borrow takes n bytes of what nobody uses, if they are there. Return gives them
// back, which who has them should do as soon as the pool is Short.
func (p *Pool) Borrow(n int64) bool {
	if p.spare.Add(-units(n)) >= 0 {
		return true
	}
	p.spare.Add(units(n))
	return false
}

// Return gives n bytes back that Borrow took.
func (p *Pool) Return(n int64) { p.spare.Add(units(n)) }

// Short reports whether more was taken than there is.
func (p *Pool) Short() bool { return p.spare.Load() < 0 }

// units is how many buffers n bytes are.
func units(n int64) int64 { return (n + Size - 1) / Size }

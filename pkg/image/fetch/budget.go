package fetch

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/berth-run/berth/pkg/errs"
)

// greed is how many times what is free one share may hold. A lone share gets two
// thirds of a budget, two get two fifths each: whoever comes finds some free.
const greed = 2

// Budget is an amount, of bytes or of connections, that shares take from. No
// share takes all of it, and one that has nothing is served before those that have
// something. Its methods, and those of its shares, are safe for concurrent use.
type Budget struct {
	total int64

	mu    sync.Mutex
	free  int64
	queue []*claim // by arrival
}

// claim is an Acquire that waits.
type claim struct {
	share *Share
	n     int64
	given chan struct{}
}

// NewBudget returns a budget of total.
func NewBudget(total int64) *Budget { return &Budget{total: total, free: total} }

// Share returns a new share, which has nothing yet. Who made it closes it.
func (b *Budget) Share() *Share { return &Share{budget: b} }

// Share is what one user has of a budget.
type Share struct {
	budget *Budget
	held   int64 // guarded by budget.mu
}

// Acquire waits until n may be taken, and takes it. It fails when ctx ends first,
// or where the budget is smaller than n.
func (s *Share) Acquire(ctx context.Context, n int64) error {
	b := s.budget
	if n > b.total {
		return fmt.Errorf("%d of a budget of %d: %w", n, b.total, errs.Exhausted)
	}
	c := &claim{share: s, n: n, given: make(chan struct{})}
	b.mu.Lock()
	b.queue = append(b.queue, c)
	b.serveLocked()
	b.mu.Unlock()
	select {
	case <-c.given:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.given: // meanwhile
		s.giveLocked(n)
	default:
		b.queue = slices.DeleteFunc(b.queue, func(o *claim) bool { return o == c })
		b.serveLocked()
	}
	return context.Cause(ctx)
}

// Release gives n back.
func (s *Share) Release(n int64) {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.giveLocked(n)
}

// Close gives everything back. The share can be used again.
func (s *Share) Close() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.giveLocked(s.held)
}

func (s *Share) giveLocked(n int64) {
	s.held -= n
	s.budget.free += n
	if s.held < 0 {
		panic("fetch: more released than acquired")
	}
	s.budget.serveLocked()
}

// serveLocked serves who has nothing, in order, then who may have more.
func (b *Budget) serveLocked() {
	for n := 0; n < len(b.queue); {
		c := b.queue[n]
		switch {
		case c.share.held > 0:
			n++
		case c.n <= b.free:
			b.giveLocked(n)
		default:
			return // nobody else gets what this one waits for
		}
	}
	for n := 0; n < len(b.queue); {
		c := b.queue[n]
		if c.share.held+c.n > greed*(b.free-c.n) {
			n++
			continue
		}
		b.giveLocked(n)
	}
}

func (b *Budget) giveLocked(n int) {
	c := b.queue[n]
	b.queue = slices.Delete(b.queue, n, n+1)
	b.free -= c.n
	c.share.held += c.n
	close(c.given)
}

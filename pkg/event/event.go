// Package event delivers typed events from one publisher to many subscribers.
//
// A subscriber has a bounded queue. One that does not keep up is cut off: its
// channel closes, Dropped counts it, and the publisher and the others never
// wait for it.
package event

import (
	"sync"
	"sync/atomic"
)

// Topic is a stream of events of type T. The zero value is ready.
type Topic[T any] struct {
	dropped atomic.Int64

	mu   sync.Mutex
	subs map[*subscription[T]]struct{}
}

type subscription[T any] struct {
	ch chan T
}

// Subscribe returns a channel of all events from now on, holding up to size
// unread ones. It closes when the subscriber falls behind or calls cancel,
// which may be called more than once.
func (t *Topic[T]) Subscribe(size int) (events <-chan T, cancel func()) {
	s := &subscription[T]{ch: make(chan T, size)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subs == nil {
		t.subs = map[*subscription[T]]struct{}{}
	}
	t.subs[s] = struct{}{}
	return s.ch, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.removeLocked(s)
	}
}

// Publish hands e to every subscriber. It never blocks.
func (t *Topic[T]) Publish(e T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.subs {
		select {
		case s.ch <- e:
		default:
			t.dropped.Add(1)
			t.removeLocked(s)
		}
	}
}

// Dropped returns how many subscribers were cut off for being slow.
func (t *Topic[T]) Dropped() int64 { return t.dropped.Load() }

func (t *Topic[T]) removeLocked(s *subscription[T]) {
	if _, ok := t.subs[s]; ok {
		delete(t.subs, s)
		close(s.ch)
	}
}

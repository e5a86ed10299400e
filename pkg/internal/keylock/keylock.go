// Package keylock gives one lock per key, taken with a context.
package keylock

import (
	"context"
	"sync"
)

// Locks is a set of locks by key. The zero value is ready. A key costs memory
// only while somebody holds its lock or waits for it.
type Locks struct {
	mu   sync.Mutex
	held map[string]*entry
}

type entry struct {
	ch   chan struct{} // holds a token while locked
	refs int           // holders and waiters
}

// Lock takes the lock of key, waiting for its holder as long as ctx lives. It
// returns the function that gives the lock back, to be called once, or the
// context's error.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	e := l.ref(key)
	select {
	case e.ch <- struct{}{}:
		return func() { <-e.ch; l.unref(key, e) }, nil
	default:
	}
	select {
	case e.ch <- struct{}{}:
		return func() { <-e.ch; l.unref(key, e) }, nil
	case <-ctx.Done():
		l.unref(key, e)
		return nil, ctx.Err()
	}
}

func (l *Locks) ref(key string) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.held[key]
	if e == nil {
		e = &entry{ch: make(chan struct{}, 1)}
		if l.held == nil {
			l.held = map[string]*entry{}
		}
		l.held[key] = e
	}
	e.refs++
	return e
}

func (l *Locks) unref(key string, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.refs--; e.refs == 0 {
		delete(l.held, key)
	}
}

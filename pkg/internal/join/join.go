// Package join runs one operation per key and lets every caller share it.
//
// kubelet repeats a call whose answer it did not get in time. The repeated call
// must join the operation that still runs, and the first one must not be undone
// because its caller went away.
package join

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// Group runs operations by key. Make one with New.
type Group[V any] struct {
	ctx context.Context // the owner's life, not a request's
	wg  sync.WaitGroup

	mu      sync.Mutex
	running map[string]*call[V]
}

type call[V any] struct {
	done chan struct{}
	v    V
	err  error
}

// New returns a Group whose operations end, at the latest, with ctx.
func New[V any](ctx context.Context) *Group[V] {
	return &Group[V]{ctx: ctx, running: map[string]*call[V]{}}
}

// Do runs f for key, or joins the f that already runs for it, and returns its
// result. When ctx ends first Do returns ctx's error and f goes on: f's own
// context carries ctx's values but ends with the Group's only.
func (g *Group[V]) Do(ctx context.Context, key string, f func(context.Context) (V, error)) (V, error) {
	c := g.join(ctx, key, f)
	select {
	case <-c.done:
		return c.v, c.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

func (g *Group[V]) join(ctx context.Context, key string, f func(context.Context) (V, error)) *call[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.running[key]; c != nil {
		return c
	}
	c := &call[V]{done: make(chan struct{})}
	g.running[key] = c
	opCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(g.ctx, cancel)
	g.wg.Go(func() {
		defer cancel()
		defer stop()
		g.run(opCtx, key, c, f)
	})
	return c
}

func (g *Group[V]) run(ctx context.Context, key string, c *call[V], f func(context.Context) (V, error)) {
	defer func() {
		if p := recover(); p != nil {
			c.err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		g.mu.Lock()
		delete(g.running, key)
		g.mu.Unlock()
		close(c.done)
	}()
	c.v, c.err = f(ctx)
}

// Wait returns once no operation runs any more.
func (g *Group[V]) Wait() { g.wg.Wait() }

// Package flight runs a pull once, however many ask for it, and tells all of them
// how far it is. It knows nothing of images: a pull is a function, its result a T.
//
// A flight's goroutine is owned by those who wait for it: the last to leave
// cancels it, and Close waits for all. Nothing slow runs under mu; listeners are
// called one at a time under the reporter's.
package flight

import (
	"context"
	"fmt"
	"sync"

	"github.com/berth-run/berth/pkg/errs"
)

// Group runs one pull per key, however many ask for it. A pull lives as long
// as somebody waits for it. The zero value is ready.
type Group[T any] struct {
	mu      sync.Mutex
	running map[string]*flight[T]
	closed  bool
	done    sync.WaitGroup
}

type flight[T any] struct {
	report  Reporter
	waiters int // guarded by Group.mu
	cancel  context.CancelFunc
	ended   chan struct{}
	result  T // set before ended is closed
	err     error
}

// Do joins the flight of key, or starts it with pull, and waits for its end or
// for ctx's.
func (f *Group[T]) Do(ctx context.Context, key string, progress func(Progress), pull func(context.Context, *Reporter) (T, error)) (T, error) {
	var none T
	fl, err := f.join(ctx, key, pull)
	if err != nil {
		return none, err
	}
	defer f.leave(key, fl)
	defer fl.report.join(progress)()
	select {
	case <-fl.ended:
		return fl.result, fl.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func (f *Group[T]) join(ctx context.Context, key string, pull func(context.Context, *Reporter) (T, error)) (*flight[T], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("images are being closed: %w", errs.Unavailable)
	}
	if fl := f.running[key]; fl != nil {
		fl.waiters++
		return fl, nil
	}
	// The flight keeps ctx's values, for logs, and not its end: others may join.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight[T]{waiters: 1, cancel: cancel, ended: make(chan struct{})}
	if f.running == nil {
		f.running = map[string]*flight[T]{}
	}
	f.running[key] = fl
	f.done.Go(func() {
		defer cancel()
		fl.result, fl.err = pull(ctx, &fl.report)
		f.mu.Lock()
		f.forgetLocked(key, fl)
		f.mu.Unlock()
		close(fl.ended)
	})
	return fl, nil
}

// leave ends a flight that nobody waits for any more.
func (f *Group[T]) leave(key string, fl *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		fl.cancel()
		f.forgetLocked(key, fl) // who comes now starts anew
	}
}

func (f *Group[T]) forgetLocked(key string, fl *flight[T]) {
	if f.running[key] == fl {
		delete(f.running, key)
	}
}

// Close cancels all flights and waits for them; later ones are refused.
func (f *Group[T]) Close() {
	f.mu.Lock()
	f.closed = true
	for _, fl := range f.running {
		fl.cancel()
	}
	f.mu.Unlock()
	f.done.Wait()
}

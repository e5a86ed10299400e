package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/berth-run/berth/pkg/errs"
)

// flights runs one pull per key, however many ask for it. A pull lives as long
// as somebody waits for it. The zero value is ready.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
	closed  bool
	done    sync.WaitGroup
}

type flight struct {
	report  reporter
	waiters int // guarded by flights.mu
	cancel  context.CancelFunc
	ended   chan struct{}
	image   Image // set before ended is closed
	err     error
}

// do joins the flight of key, or starts it with pull, and waits for its end or
// for ctx's.
func (f *flights) do(ctx context.Context, key string, progress func(Progress), pull func(context.Context, *reporter) (Image, error)) (Image, error) {
	fl, err := f.join(ctx, key, pull)
	if err != nil {
		return Image{}, err
	}
	defer f.leave(key, fl)
	defer fl.report.join(progress)()
	select {
	case <-fl.ended:
		return fl.image, fl.err
	case <-ctx.Done():
		return Image{}, ctx.Err()
	}
}

func (f *flights) join(ctx context.Context, key string, pull func(context.Context, *reporter) (Image, error)) (*flight, error) {
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
	fl := &flight{waiters: 1, cancel: cancel, ended: make(chan struct{})}
	if f.running == nil {
		f.running = map[string]*flight{}
	}
	f.running[key] = fl
	f.done.Go(func() {
		defer cancel()
		fl.image, fl.err = pull(ctx, &fl.report)
		f.mu.Lock()
		f.forgetLocked(key, fl)
		f.mu.Unlock()
		close(fl.ended)
	})
	return fl, nil
}

// leave ends a flight that nobody waits for any more.
func (f *flights) leave(key string, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		fl.cancel()
		f.forgetLocked(key, fl) // who comes now starts anew
	}
}

func (f *flights) forgetLocked(key string, fl *flight) {
	if f.running[key] == fl {
		delete(f.running, key)
	}
}

// close cancels all flights and waits for them; later ones are refused.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	for _, fl := range f.running {
		fl.cancel()
	}
	f.mu.Unlock()
	f.done.Wait()
}

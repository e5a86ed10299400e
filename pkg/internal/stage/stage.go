// Package stage says how far an operation has come, to whoever watches it: the
// watcher travels in the context, and without one nothing is done.
package stage

import (
	"context"
	"sync"
	"time"
)

// Watcher is told of the stages of operations, from many goroutines.
type Watcher interface {
	// Begin tells that a stage begins. It returns the context of what the stage is
	// made of, and what is called once, with its error, at its end.
	Begin(ctx context.Context, name string) (context.Context, func(error))
	// Deep reports whether stages of other processes are wanted too.
	Deep(ctx context.Context) bool
	// Past tells of a stage that another process has been through.
	Past(ctx context.Context, p Passed)
}

// Passed is a stage that is over.
type Passed struct {
	Name  string        `json:"name"`
	Begun time.Time     `json:"begun"`
	Took  time.Duration `json:"took_ns"`
	Error string        `json:"error,omitempty"`
}

type key struct{}

// With returns a context whose operations w watches.
func With(ctx context.Context, w Watcher) context.Context { return context.WithValue(ctx, key{}, w) }

func watcher(ctx context.Context) Watcher {
	w, _ := ctx.Value(key{}).(Watcher)
	return w
}

// Run is f as a stage. Names come from a fixed set: they are labels of metrics.
func Run(ctx context.Context, name string, f func(context.Context) error) error {
	w := watcher(ctx)
	if w == nil {
		return f(ctx)
	}
	ctx, end := w.Begin(ctx, name)
	err := f(ctx)
	end(err)
	return err
}

// Deep reports whether somebody wants the stages of other processes.
func Deep(ctx context.Context) bool {
	w := watcher(ctx)
	return w != nil && w.Deep(ctx)
}

// Past tells of stages that another process has been through.
func Past(ctx context.Context, all []Passed) {
	w := watcher(ctx)
	if w == nil {
		return
	}
	for _, p := range all {
		w.Past(ctx, p)
	}
}

// maxPassed bounds what a Log keeps.
const maxPassed = 256

// Log is a Watcher that keeps the stages that are over, for one operation.
type Log struct {
	mu  sync.Mutex
	all []Passed
}

var _ Watcher = (*Log)(nil)

// Begin implements Watcher.
func (l *Log) Begin(ctx context.Context, name string) (context.Context, func(error)) {
	begun := time.Now()
	return ctx, func(err error) {
		p := Passed{Name: name, Begun: begun, Took: time.Since(begun)}
		if err != nil {
			p.Error = err.Error()
		}
		l.Past(ctx, p)
	}
}

// Deep implements Watcher.
func (l *Log) Deep(context.Context) bool { return true }

// Past implements Watcher.
func (l *Log) Past(_ context.Context, p Passed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) < maxPassed {
		l.all = append(l.all, p)
	}
}

// Passed returns the stages that are over, in the order of their ends.
func (l *Log) Passed() []Passed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

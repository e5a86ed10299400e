// Package undo keeps the clean-ups of a half-done operation.
package undo

import (
	"context"
	"errors"
	"time"
)

// limit bounds each clean-up, so that one that hangs cannot hold the others.
const limit = 30 * time.Second

// Stack holds clean-ups, newest last. The zero value is empty and ready. It is
// for one goroutine.
type Stack struct {
	steps []func(context.Context) error
}

// Push adds a clean-up for the step that has just succeeded.
func (s *Stack) Push(f func(context.Context) error) { s.steps = append(s.steps, f) }

// Run calls the clean-ups, newest first, each with a context that outlives
// ctx's cancellation and has a bound of its own. It returns their joined errors
// and leaves the stack empty; after Discard it does nothing.
func (s *Stack) Run(ctx context.Context) error {
	var failed []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		failed = append(failed, s.step(ctx, s.steps[i]))
	}
	s.steps = nil
	return errors.Join(failed...)
}

func (s *Stack) step(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return f(ctx)
}

// Discard forgets the clean-ups: the operation has succeeded.
func (s *Stack) Discard() { s.steps = nil }

package undo_test

import (
	"context"
	"errors"
	"testing"

	"github.com/berth-run/berth/pkg/internal/undo"
)

func TestRunGoesNewestFirstAndSurvivesCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var s undo.Stack
	var got []int
	bad := errors.New("bad")
	s.Push(func(context.Context) error { got = append(got, 1); return nil })
	s.Push(func(ctx context.Context) error { got = append(got, 2); return errors.Join(bad, ctx.Err()) })
	err := s.Run(ctx)
	if !errors.Is(err, bad) || errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if len(got) != 2 || got[0] != 2 || got[1] != 1 {
		t.Errorf("order: %v", got)
	}
}

func TestDiscardForgets(t *testing.T) {
	var s undo.Stack
	s.Push(func(context.Context) error { return errors.New("ran") })
	s.Discard()
	if err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

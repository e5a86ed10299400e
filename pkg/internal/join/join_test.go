package join_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/pkg/internal/join"
)

func TestRetryJoinsTheRunningOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := join.New[int](t.Context())
		runs := 0
		slow := func(ctx context.Context) (int, error) {
			runs++
			time.Sleep(time.Minute)
			return runs, ctx.Err()
		}
		first, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.Do(first, "a", slow); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("first caller: %v", err)
		}
		if n, err := g.Do(t.Context(), "a", slow); n != 1 || err != nil {
			t.Errorf("retry: %d, %v", n, err)
		}
		if n, err := g.Do(t.Context(), "a", slow); n != 2 || err != nil {
			t.Errorf("after the end: %d, %v", n, err)
		}
	})
}

func TestGroupEndsItsOperations(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := join.New[int](ctx)
	cancel()
	_, err := g.Do(t.Context(), "a", func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	g.Wait()
}

func TestPanicBecomesAnError(t *testing.T) {
	g := join.New[int](t.Context())
	_, err := g.Do(t.Context(), "a", func(context.Context) (int, error) { panic("boom") })
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
}

package fetch_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/fetch"
)

// fill takes one by one until it would have to wait, and returns how many.
func fill(t *testing.T, s *fetch.Share) int {
	t.Helper()
	n := 0
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for s.Acquire(ctx, 1) == nil {
			n++
		}
	})
	synctest.Wait()
	cancel()
	wg.Wait()
	return n
}

func TestBudgetLeavesRoomForWhoComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fetch.NewBudget(90)
		shares := []*fetch.Share{b.Share(), b.Share(), b.Share()}
		if n := fill(t, shares[0]); n != 60 {
			t.Errorf("alone it takes %d", n)
		}
		if n := fill(t, shares[1]); n != 20 {
			t.Errorf("the second takes %d", n)
		}
		shares[0].Release(40)
		if n := fill(t, shares[2]); n != 33 {
			t.Errorf("the third takes %d", n)
		}
		for _, s := range shares {
			s.Close()
		}
		if err := shares[0].Acquire(t.Context(), 90); err != nil {
			t.Error(err)
		}
	})
}

func TestBudgetServesWhoHasNothingFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fetch.NewBudget(10)
		rich, poor := b.Share(), b.Share()
		if err := rich.Acquire(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		var more atomic.Bool
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { more.Store(rich.Acquire(ctx, 1) == nil) })
		synctest.Wait() // rich asks first
		served := make(chan struct{})
		wg.Go(func() {
			defer close(served)
			if err := poor.Acquire(ctx, 5); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		rich.Release(4)
		synctest.Wait()
		if more.Load() {
			t.Error("what somebody waits for who has nothing was given away")
		}
		rich.Release(2)
		<-served
		cancel()
		wg.Wait()
		if more.Load() {
			t.Error("a share has more than two thirds")
		}
	})
}

func TestBudgetForgetsWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := fetch.NewBudget(4)
		a, c := b.Share(), b.Share()
		if err := a.Acquire(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Acquire(ctx, 4); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if err := b.Share().Acquire(t.Context(), 1); err != nil {
			t.Error(err)
		}
	})
}

func TestBudgetRefusesWhatItNeverHas(t *testing.T) {
	if err := fetch.NewBudget(4).Share().Acquire(t.Context(), 5); !errors.Is(err, errs.Exhausted) {
		t.Errorf("got %v", err)
	}
}

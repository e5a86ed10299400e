package keylock

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestOneHolderPerKey(t *testing.T) {
	var l Locks
	var wg sync.WaitGroup
	n := 0
	for range 50 {
		wg.Go(func() {
			unlock, err := l.Lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			n++
			unlock()
		})
	}
	wg.Wait()
	if n != 50 || len(l.held) != 0 {
		t.Errorf("n=%d, %d keys kept", n, len(l.held))
	}
}

func TestWaiterHonoursContext(t *testing.T) {
	var l Locks
	unlock, err := l.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Lock(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if free, err := l.Lock(t.Context(), "b"); err != nil {
		t.Error(err)
	} else {
		free()
	}
	unlock()
	if len(l.held) != 0 {
		t.Errorf("%d keys kept", len(l.held))
	}
}

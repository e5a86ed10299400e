package buffer

import (
	"context"
	"errors"
	"testing"
	"time"
)

// count returns how many buffers can be had without waiting.
func count(t *testing.T, l *Lease) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for n := 0; ; n++ {
		if _, err := l.Get(ctx); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			return n
		}
	}
}

func TestALargeStreamLeavesASmallOneItsOwn(t *testing.T) {
	p := New(5*Size + 1)
	large := p.Lease(2, 100)
	if n := count(t, large); n != 7 {
		t.Errorf("%d buffers where the budget has 5 and 2 are its own", n)
	}
	small := p.Lease(2, 4)
	if n := count(t, small); n != 2 {
		t.Errorf("%d buffers beside a stream that has the whole budget", n)
	}
	large.Close()
	if n := count(t, small); n != 2 {
		t.Errorf("%d more buffers up to its bound of 4", n)
	}
	small.Close()
	again := p.Lease(0, 100)
	if n := count(t, again); n != 5 {
		t.Errorf("%d buffers of the budget of 5 after all", n)
	}
}

func TestGetWaitsForPut(t *testing.T) {
	l := New(0).Lease(1, 4)
	b, err := l.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { l.Put(b) })
	if again, err := l.Get(t.Context()); err != nil || again != b {
		t.Errorf("got %p, %v, want %p", again, err, b)
	}
}

package testutil

import (
	"context"
	"testing"
	"time"
)

// Await calls f until it returns nil, and ends the test with f's last error
// where that takes longer than limit. It is for conditions in other processes,
// which announce nothing.
func Await(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %s: %v", limit, err)
		}
	}
}

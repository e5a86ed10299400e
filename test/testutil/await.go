package testutil

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"
)

// Patience is a limit of time as it is on this machine: BERTH_TEST_SLOWER says how
// many times slower it is than those that limits are for.
func Patience(limit time.Duration) time.Duration {
	times, err := strconv.Atoi(os.Getenv("BERTH_TEST_SLOWER"))
	if err != nil {
		return limit
	}
	return limit * time.Duration(max(1, times))
}

// Await calls f until it returns nil, and ends the test with f's last error
// where that takes longer than limit. It is for conditions in other processes,
// which announce nothing.
func Await(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience(limit))
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

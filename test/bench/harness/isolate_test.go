package harness

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain also plays the measuring process, which ends when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv(stageVariable) != stageMeasure {
		os.Exit(m.Run())
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM)
	select {
	case <-told:
		os.Exit(0)
	case <-time.After(10 * time.Second):
		os.Exit(17)
	}
}

func TestInitPassesOnThatItIsToEnd(t *testing.T) {
	t.Setenv(stageVariable, stageInit)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// The signal may come before the process minds it, and end it all the same.
	if err := reap(ctx); err != nil && strings.Contains(err.Error(), "17") {
		t.Error("the measuring process was not told to end")
	}
}

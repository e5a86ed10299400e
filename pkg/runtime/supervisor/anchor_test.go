package supervisor

import (
	"bytes"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lineCounter sends for each line of a log.
type lineCounter chan struct{}

func (c lineCounter) Write(b []byte) (int, error) {
	for range bytes.Count(b, []byte("\n")) {
		c <- struct{}{}
	}
	return len(b), nil
}

func TestAnchorTriesAgainWhereItsFirstWorkerCannotStart(t *testing.T) {
	o := testOptions(t.TempDir())
	said := make(lineCounter, 100)
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(said, nil)))
	defer slog.SetDefault(before)
	const closed = 1 << 20 // no descriptor, so that nothing starts with it
	a := &anchor{o: &o, store: store{}, listen: closed, lock: -1, link: -1}
	signals := make(chan os.Signal, 1)
	ended := make(chan int)
	go func() { ended <- a.run(signals) }()
	for range 3 {
		select {
		case <-said:
		case <-time.After(5 * time.Second):
			t.Fatal("it does not try again")
		}
	}
	signals <- unix.SIGTERM
	if status := <-ended; status != 0 {
		t.Errorf("status %d", status)
	}
}

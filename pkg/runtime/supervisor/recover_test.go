package supervisor

import (
	"context"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/runtime"
)

// slowEngine has execs that do not end.
type slowEngine struct{ *hostEngine }

func (slowEngine) EndExec(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestLostExecsDoNotHoldUpTheWorker(t *testing.T) {
	w := newLone(t, func(dir string) runtime.Engine { return slowEngine{&hostEngine{dir}} })
	kept := store{}
	for _, id := range []string{"a", "b"} {
		kept[execEntry("c", id)] = &entry{ID: execEntry("c", id)}
	}
	opened := make(chan error, 1)
	go func() {
		err := w.open(kept)
		if err == nil {
			w.close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for them")
	}
	if len(w.lost) != 2 {
		t.Errorf("the next worker has %v to end", w.lost)
	}
}

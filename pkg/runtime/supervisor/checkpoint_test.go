package supervisor

import (
	"context"
	"errors"
	"testing"

	"github.com/berth-run/berth/pkg/runtime"
)

// abandonedEngine is one whose caller goes away while it dumps, or while it freezes.
type abandonedEngine struct {
	*hostEngine
	leave  context.CancelFunc
	early  bool
	thawed int
}

func (e *abandonedEngine) Checkpoint(ctx context.Context, r runtime.CheckpointRequest, fifos map[string]string) error {
	e.leave()
	return e.hostEngine.Checkpoint(ctx, r, fifos)
}

func (e *abandonedEngine) Freeze(ctx context.Context, _ string, frozen bool) error {
	if !frozen {
		e.thawed++
		return ctx.Err()
	}
	if e.early {
		e.leave()
	}
	return nil
}

func TestWhatACallerWhoHasGoneFrozeIsResumed(t *testing.T) {
	for _, early := range []bool{true, false} {
		ctx, leave := context.WithCancel(t.Context())
		e := &abandonedEngine{leave: leave, early: early}
		w := lone(t, func(dir string) runtime.Engine { e.hostEngine = &hostEngine{dir}; return e })
		spec := hostSpec("/bin/sleep", "1000")
		_, err := w.create(t.Context(), runtime.CreateRequest{ID: "c", Spec: spec})
		if err == nil {
			_, err = w.start(t.Context(), "c")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.Signal(context.Background(), "c", 9, true) })
		if err = w.freeze(ctx, "c", true); err == nil {
			err = w.checkpoint(ctx, runtime.CheckpointRequest{ID: "c", Spec: spec, Dir: t.TempDir()})
		}
		if !errors.Is(err, errGone) {
			t.Errorf("got %v", err)
		}
		if s := w.containers["c"].get().State; s != runtime.Running || e.thawed != 1 {
			t.Errorf("it is %s, and was resumed %d times", s, e.thawed)
		}
	}
}

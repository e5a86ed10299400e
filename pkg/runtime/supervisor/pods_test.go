package supervisor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/runtime"
)

// stuckEngine has a process in its pods that does not end.
type stuckEngine struct{ hostEngine }

func (e *stuckEngine) DeletePod(ctx context.Context, _ runtime.PodRequest, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestPodThatDoesNotEndGivesItsLockBack(t *testing.T) {
	o := testOptions(t.TempDir())
	if err := o.makeDirs(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p := &pods{&o, &stuckEngine{}, &keylock.Locks{}}
		if err := p.create(t.Context(), runtime.PodRequest{ID: "p"}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.delete(t.Context(), "p"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
	})
}

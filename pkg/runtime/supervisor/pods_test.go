package supervisor

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
)

// stuckEngine has a process in its pods that does not end.
type stuckEngine struct{ hostEngine }

func (e *stuckEngine) DeletePod(ctx context.Context, _ runtime.PodRequest, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

// initEngine says that some process is the pod's PID 1.
type initEngine struct {
	hostEngine
	pid     int
	deleted []int
}

func (e *initEngine) CreatePod(context.Context, runtime.PodRequest) (int, error) { return e.pid, nil }

func (e *initEngine) DeletePod(_ context.Context, _ runtime.PodRequest, pid int) error {
	e.deleted = append(e.deleted, pid)
	return nil
}

func TestPIDOneIsNotTakenForALaterProcessOfItsNumber(t *testing.T) {
	o := testOptions(t.TempDir())
	if err := o.makeDirs(); err != nil {
		t.Fatal(err)
	}
	e := &initEngine{pid: os.Getpid()}
	p := &pods{&o, e, &keylock.Locks{}}
	for _, later := range []bool{false, true} {
		if err := p.create(t.Context(), runtime.PodRequest{ID: "p"}); err != nil {
			t.Fatal(err)
		}
		if later {
			var rec podRecord
			if err := statefile.Read(o.pod("p"), &rec); err != nil {
				t.Fatal(err)
			}
			rec.InitBegun--
			if err := statefile.Write(o.pod("p"), &rec); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.delete(t.Context(), "p"); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(e.deleted, []int{e.pid, 0}) {
		t.Errorf("got %v", e.deleted)
	}
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

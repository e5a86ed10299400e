package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/berth-run/berth/pkg/errs"
)

func TestOnePullServesAllWhoAskMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		pulls, told := 0, 0
		arrive := make(chan struct{})
		pull := func(_ context.Context, r *Reporter) (int, error) {
			pulls++
			<-arrive
			r.Tell(Progress{Phase: PhaseDone})
			return 7, nil
		}
		for range 3 {
			go func() {
				if n, err := g.Do(t.Context(), "a", func(Progress) { told++ }, pull); n != 7 || err != nil {
					t.Errorf("got %d, %v", n, err)
				}
			}()
		}
		synctest.Wait()
		close(arrive)
		synctest.Wait()
		if pulls != 1 || told != 3 {
			t.Errorf("%d pulls, %d were told", pulls, told)
		}
	})
}

func TestTheLastToLeaveEndsAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group[int]
		ended := false
		pull := func(ctx context.Context, _ *Reporter) (int, error) {
			<-ctx.Done()
			ended = true
			return 0, ctx.Err()
		}
		var leave [2]context.CancelFunc
		for n := range leave {
			var ctx context.Context
			ctx, leave[n] = context.WithCancel(t.Context())
			go func() { _, _ = g.Do(ctx, "a", nil, pull) }()
		}
		for n, want := range []bool{false, true} {
			synctest.Wait()
			leave[n]()
			synctest.Wait()
			if ended != want {
				t.Errorf("after %d of 2 have left: ended %v", n+1, ended)
			}
		}
		g.Close()
		if _, err := g.Do(t.Context(), "a", nil, pull); !errors.Is(err, errs.Unavailable) {
			t.Errorf("after Close: %v", err)
		}
	})
}

package buffer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestChargesAreServedInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(10 * Size)
		var order []int64
		charge := func(n int64) {
			go func() {
				if err := p.Charge(t.Context(), n*Size); err != nil {
					t.Error(err)
				}
				order = append(order, n)
			}()
			synctest.Wait()
		}
		for _, n := range []int64{6, 4, 30, 1} {
			charge(n)
		}
		if len(order) != 2 {
			t.Fatalf("%d of a budget of 10 were given", order)
		}
		p.Discharge(4 * Size)
		synctest.Wait()
		if len(order) != 2 {
			t.Fatalf("%d: more than all was given beside another, or out of turn", order)
		}
		p.Discharge(6 * Size)
		synctest.Wait()
		if len(order) != 3 || order[2] != 30 {
			t.Fatalf("%d: more than all was not given to one alone", order)
		}
		p.Discharge(30 * Size)
		synctest.Wait()
		if len(order) != 4 || p.Short() || !p.Borrow(9*Size) || p.Borrow(1) {
			t.Errorf("%d were given, and %d of 9 are left", order, p.spare.Load())
		}
	})
}

func TestAChargeThatIsGivenUpHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(10 * Size)
		if err := p.Charge(t.Context(), 6*Size); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := p.Charge(ctx, 5*Size); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		synctest.Wait()
		given := false
		go func() {
			if err := p.Charge(t.Context(), 4*Size); err != nil {
				t.Error(err)
			}
			given = true
		}()
		synctest.Wait()
		if given {
			t.Error("the second in the queue was served first")
		}
		cancel()
		synctest.Wait()
		if !given {
			t.Error("nobody was served after one gave up")
		}
	})
}

func TestBuffersGiveWayToCharges(t *testing.T) {
	p := New(5 * Size)
	l := p.Lease(2, 7)
	var taken []*Buffer
	for range 7 {
		b, err := l.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, b)
	}
	if err := p.Charge(t.Context(), 4*Size); err != nil {
		t.Fatal(err)
	}
	if !p.Short() || p.Borrow(1) {
		t.Error("a pool lends what it does not have")
	}
	for _, b := range taken {
		l.Put(b)
	}
	if n := count(t, l); n != 3 {
		t.Errorf("%d buffers where the budget has 1 left and 2 are its own", n)
	}
	p.Discharge(4 * Size)
	if n := count(t, l); n != 4 {
		t.Errorf("%d more buffers of 4", n)
	}
}

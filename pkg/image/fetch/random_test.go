package fetch_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/fetch"
)

// misbehave returns answers of which about one in four is bad, in a way that a
// reader can see.
func misbehave(r *rand.Rand) func(int, request, *body) error {
	return func(_ int, _ request, b *body) error {
		left := b.end - b.from
		switch r.IntN(28) {
		case 0:
			return errors.New("connection reset")
		case 1:
			return &fetch.Busy{After: time.Duration(r.IntN(5)) * time.Second, Err: errors.New("429")}
		case 2:
			b.end, b.fail = b.from+r.Int64N(left), io.ErrUnexpectedEOF
		case 3:
			b.end = b.from + r.Int64N(left) // ends early
		case 4:
			b.stalls, b.stall = true, r.Int64N(left)
		case 5:
			b.end += 1000 // goes on after its end
		case 6:
			b.Partial, b.First, b.from, b.end, b.Length = false, 0, 0, b.fake.size, b.fake.size
		case 7:
			if b.Partial {
				b.First++
				b.from++
			}
		case 8:
			if b.Partial {
				b.end = b.from + 1 + r.Int64N(left)
				b.Last, b.Length = b.end-1, b.end-b.from
			}
		}
		return nil
	}
}

func TestBytesAreRightWhateverHostsDo(t *testing.T) {
	came := 0
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			size := 1 + r.Int64N(8*mib)
			var hosts []*fake
			for n := range 1 + r.IntN(3) {
				own := rand.New(rand.NewPCG(seed, uint64(n+1)))
				hosts = append(hosts, &fake{
					name: fmt.Sprint("host", n), size: size, latency: time.Millisecond, rate: 10 * mib, answer: serial(misbehave(own)),
				})
			}
			o := fetch.Options{Chunk: 1 + r.Int64N(mib), PerBlob: 1 + r.IntN(16)}
			err := fetched(t.Context(), t, o, r.Int64N(size), hosts...)
			var failure *fetch.Failure
			switch {
			case err == nil:
				came++
			case !errors.As(err, &failure) || errs.Of(err) == "":
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
	if came < 100 {
		t.Errorf("%d of 150 blobs came", came)
	}
}

// serial makes answers one at a time.
func serial(f func(int, request, *body) error) func(int, request, *body) error {
	turn := make(chan struct{}, 1)
	return func(n int, r request, b *body) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		return f(n, r, b)
	}
}

func TestLittleIsEnough(t *testing.T) {
	for _, whole := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := fetch.New(fetch.Options{Memory: fetch.NewBudget(8), Connections: fetch.NewBudget(1)})
			h := &fake{name: "h", size: 1000, latency: time.Millisecond, whole: whole}
			for range 2 {
				r := f.Open(t.Context(), []fetch.Source{h}, h.size, 0)
				if err := read(r, h.size, 0); err != nil {
					t.Error(err)
				}
				r.Close()
			}
			if h.most != 1 {
				t.Errorf("%d connections", h.most)
			}
		})
	}
}

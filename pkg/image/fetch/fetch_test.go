package fetch_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/pkg/image/fetch"
)

func TestConnectionsAreAddedWhileTheRateGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{name: "h", size: 400 * mib, latency: 20 * time.Millisecond, rate: 50 * mib}
		start := time.Now()
		if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
			t.Fatal(err)
		}
		h.once(t)
		if took := time.Since(start); took > 2*time.Second { // one connection takes 10
			t.Errorf("took %s over %d connections", took, h.most)
		}
		if h.requests[0].first != 0 || h.most < 8 {
			t.Errorf("%d connections", h.most)
		}
	})
}

func TestConnectionsStayFewWhereMoreBringNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{name: "h", size: 400 * mib, latency: time.Millisecond}
		h.answer = func(_ int, _ request, b *body) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			b.rate = 100 * mib / int64(h.open) // of one line, shared
			return nil
		}
		if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
			t.Fatal(err)
		}
		h.once(t)
		if h.most > 6 {
			t.Errorf("%d connections", h.most)
		}
	})
}

func TestSmallBlobIsOneRequestWithoutRange(t *testing.T) {
	h := &fake{name: "h", size: 70_001}
	if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
		t.Fatal(err)
	}
	h.once(t)
	if len(h.requests) != 1 || h.requests[0] != (request{0, -1}) {
		t.Errorf("requests: %v", h.requests)
	}
}

func TestEmptyBlobIsNotAskedFor(t *testing.T) {
	h := &fake{name: "h"}
	if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil || len(h.requests) != 0 {
		t.Errorf("%v, %v", err, h.requests)
	}
}

func TestOffsetIsWhereItBegins(t *testing.T) {
	for _, whole := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := &fake{name: "h", size: 30*mib + 3, whole: whole, rate: 100 * mib}
			if err := fetched(t.Context(), t, fetch.Options{}, 17*mib+1, h); err != nil {
				t.Error(err)
			}
			if !whole && h.sent != h.size-17*mib-1 {
				t.Errorf("%d bytes were sent", h.sent)
			}
		})
	}
}

func TestHostThatIgnoresRangesIsReadInOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{name: "h", size: 50*mib + 5, whole: true, rate: 100 * mib, latency: time.Millisecond}
		if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
			t.Fatal(err)
		}
		if h.most != 1 || len(h.requests) != 1 || h.sent != h.size {
			t.Errorf("%d connections, %d bytes, requests %v", h.most, h.sent, h.requests)
		}
	})
}

func TestHostThatAnswersRangesWronglyIsReadInOneStream(t *testing.T) {
	for name, spoil := range map[string]func(b *body){
		"another beginning":   func(b *body) { b.First, b.from = b.First+1, b.from+1 },
		"more than asked for": func(b *body) { b.Last++; b.Length++; b.end++ },
		"nothing":             func(b *body) { b.Last = b.First - 1; b.Length = 0; b.end = b.from },
		"no Content-Range":    func(b *body) { b.First, b.Last, b.Total = -1, -1, -1 },
		"another length":      func(b *body) { b.Length++ },
		"a byte at a time":    func(b *body) { b.Last, b.Length, b.end = b.First, 1, b.from+1 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &fake{name: "h", size: 20 * mib, rate: 100 * mib}
				h.answer = func(n int, _ request, b *body) error {
					if b.Partial && n > 1 { // right at first
						spoil(b)
					}
					return nil
				}
				if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
					t.Error(err)
				}
				if h.sent > 2*h.size {
					t.Errorf("%d bytes were sent", h.sent)
				}
			})
		})
	}
}

func TestCancelEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails where a goroutine stays
		h := &fake{name: "h", size: 1 << 40, rate: mib}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_ = after(t.Context(), 3*time.Second)
			cancel()
		}()
		if err := fetched(ctx, t, fetch.Options{}, 0, h); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseInTheMiddleEndsEverything(t *testing.T) {
	for _, whole := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := &fake{name: "h", size: 1 << 40, rate: 100 * mib, whole: whole}
			r := fetch.New(fetch.Options{}).Open(t.Context(), []fetch.Source{h}, h.size, 0)
			if _, err := io.CopyN(io.Discard, r, 20*mib+1); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("after Close: %d, %v", n, err)
			}
			synctest.Wait()
			if h.open != 0 {
				t.Errorf("%d bodies are open", h.open)
			}
		})
	}
}

func TestBusyConsumerIsNoStall(t *testing.T) {
	for _, whole := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := &fake{name: "h", size: 100 * mib, whole: whole, rate: 10 * mib}
			r := fetch.New(fetch.Options{}).Open(t.Context(), []fetch.Source{h}, h.size, 0)
			defer r.Close()
			var done int64
			for done < h.size {
				n, err := io.CopyN(io.Discard, r, 20*mib)
				if err != nil {
					t.Fatal(err)
				}
				done += n
				_ = after(t.Context(), time.Hour)
			}
			if h.sent != h.size {
				t.Errorf("%d bytes were sent", h.sent)
			}
		})
	}
}

func TestNoMoreIsAheadThanOneChunkForEachConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk = 4 * mib
		h := &fake{name: "h", size: 400 * mib, rate: 10 * mib, latency: 10 * time.Millisecond}
		h.answer = func(n int, _ request, b *body) error {
			if n%20 == 0 {
				b.rate = mib // the others wait for this one
			}
			return nil
		}
		r := fetch.New(fetch.Options{PerBlob: 4}).Open(t.Context(), []fetch.Source{h}, h.size, 0)
		defer r.Close()
		p := make([]byte, mib)
		for done := int64(0); done < h.size; {
			n, err := r.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			if done/(100*mib) != (done+int64(n))/(100*mib) {
				_ = after(t.Context(), time.Minute) // who reads is the slow one
			}
			h.mu.Lock()
			ahead, most := h.sent-done, int64(h.most)
			h.mu.Unlock()
			if done += int64(n); ahead > most*chunk {
				t.Fatalf("%d bytes have come and were not read, over %d connections", ahead, most)
			}
		}
		if h.most < 4 {
			t.Errorf("%d connections", h.most)
		}
	})
}

func TestSmallBlobIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := &fake{name: "big", size: 1 << 40, rate: 100 * mib}
		small := &fake{name: "small", size: 9 * mib, rate: 100 * mib, latency: 10 * time.Millisecond}
		f := fetch.New(fetch.Options{})
		var stuck []*fetch.Reader
		for range 3 {
			r := f.Open(t.Context(), []fetch.Source{big}, big.size, 0)
			if _, err := io.CopyN(io.Discard, r, 100*mib); err != nil {
				t.Fatal(err)
			}
			stuck = append(stuck, r) // who reads it has stopped, with as much as it may have
		}
		_ = after(t.Context(), time.Minute)
		start := time.Now()
		r := f.Open(t.Context(), []fetch.Source{small}, small.size, 0)
		if err := read(r, small.size, 0); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("took %s", took)
		}
		for _, r := range append(stuck, r) {
			r.Close()
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{name: "h", size: 1 << 40, rate: 100 * mib}
		f := fetch.New(fetch.Options{Memory: fetch.NewBudget(16 * mib)})
		var all []*fetch.Reader
		for range 50 {
			r := f.Open(t.Context(), []fetch.Source{h}, h.size, 0)
			all = append(all, r)
			go func() { // some wait until they are closed
				if n, err := r.Read(make([]byte, 1)); n == 0 && !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("got %v", err)
				}
			}()
			_ = after(t.Context(), time.Second)
		}
		if h.sent > 16*mib {
			t.Errorf("%d bytes are kept", h.sent)
		}
		for _, r := range all {
			r.Close()
		}
	})
}

func TestNoHostIsAnError(t *testing.T) {
	r := fetch.New(fetch.Options{}).Open(t.Context(), nil, 1, 0)
	defer r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "no host") {
		t.Errorf("got %v", err)
	}
}

package fetch_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/fetch"
)

func TestDroppedConnectionGoesOnAtTheByteReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{name: "h", size: 16 * mib, rate: 100 * mib}
		h.answer = func(n int, _ request, b *body) error {
			if n == 2 {
				b.end, b.fail = b.from+mib+7, io.ErrUnexpectedEOF
			}
			return nil
		}
		if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
			t.Fatal(err)
		}
		h.once(t)
		if reached := h.requests[1].first + mib + 7; !slices.ContainsFunc(h.requests, func(r request) bool { return r.first == reached }) {
			t.Errorf("nobody has asked for byte %d: %v", reached, h.requests)
		}
	})
}

func TestRetriesPauseLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		h := &fake{name: "h", size: mib}
		h.answer = func(n int, _ request, _ *body) error {
			if at = append(at, time.Now()); n < 5 {
				return errors.New("connection refused")
			}
			return nil
		}
		if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
			t.Fatal(err)
		}
		for n, low := range []time.Duration{100, 200, 400, 800} { // half of the pause, and half as much again
			low *= time.Millisecond
			if p := at[n+1].Sub(at[n]); p < low || p > 3*low {
				t.Errorf("pause %d is %s", n, p)
			}
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{name: "h", size: 40 * mib, rate: 100 * mib}
		start := time.Now()
		var early int
		h.answer = func(n int, _ request, _ *body) error {
			switch since := time.Since(start); {
			case n == 2:
				return &fetch.Busy{After: 30 * time.Second, Err: fmt.Errorf("429 Too Many Requests: %w", errs.Unavailable)}
			case n > 8 && since < 30*time.Second: // those that were under way are no matter
				early++
			}
			return nil
		}
		if err := fetched(t.Context(), t, fetch.Options{}, 0, h); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); early > 0 || took < 30*time.Second || took > 40*time.Second {
			t.Errorf("took %s, %d early requests", took, early)
		}
	})
}

// ended fetches what cannot come and returns the error.
func ended(t *testing.T, o fetch.Options, hosts ...*fake) error {
	t.Helper()
	var err error
	synctest.Test(t, func(t *testing.T) {
		if err = fetched(t.Context(), t, o, 0, hosts...); err == nil {
			t.Error("no error")
		}
	})
	return err
}

func TestFailureTellsWhatWhereAndWhatToDo(t *testing.T) {
	always := func(err error) func(int, request, *body) error {
		return func(int, request, *body) error { return err }
	}
	for name, c := range map[string]struct {
		answer func(int, request, *body) error
		kind   errs.Kind
		texts  []string
	}{
		"denied":      {always(fmt.Errorf("401 Unauthorized: %w", errs.Denied)), errs.Denied, []string{"h.example: 401", "check the credentials"}},
		"absent":      {always(fmt.Errorf("404 Not Found: %w", errs.NotFound)), errs.NotFound, []string{"404", "still complete there"}},
		"refused":     {always(errors.New("connection refused")), errs.Unavailable, []string{"connection refused, at the last of 6 attempts", "reached from this node"}},
		"busy":        {always(&fetch.Busy{Err: errors.New("503")}), errs.Unavailable, []string{"503", "6 attempts", "try again later"}},
		"busy for it": {always(&fetch.Busy{After: time.Hour, Err: errors.New("429")}), errs.Unavailable, []string{"429, and asks to come back in 1h0m0s (", "log in"}},
		"stalled": {func(_ int, _ request, b *body) error { b.stalls, b.stall = true, 10; return nil }, errs.Unavailable, []string{
			"it stalled: 10 bytes came in 1m0s", "check the network",
		}},
		"slow": {func(_ int, _ request, b *body) error { b.rate = 100; return nil }, errs.Unavailable, []string{"it stalled"}},
		"short": {func(_ int, _ request, b *body) error { b.end = 100; return nil }, errs.Unavailable, []string{
			"the body ended", "bytes early", "pull again",
		}},
		"another size": {func(_ int, _ request, b *body) error { b.Length, b.Total = 9, 9; return nil }, errs.Invalid, []string{
			"it has 9 bytes of a blob of 1048576", "its copy is damaged",
		}},
		"wrong range of all": {func(_ int, _ request, b *body) error { b.Partial, b.First = true, 7; return nil }, errs.Invalid, []string{
			"ranges asked for, nor the whole blob",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			err := ended(t, fetch.Options{}, &fake{name: "h.example", size: mib, answer: c.answer})
			var f *fetch.Failure
			if !errors.As(err, &f) || errs.Of(err) != c.kind {
				t.Errorf("kind %q: %v", errs.Of(err), err)
			}
			for _, text := range append(c.texts, "h.example: ") {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q is not in %q", text, err)
				}
			}
		})
	}
}

func TestNextHostGoesOnInTheMiddle(t *testing.T) {
	for name, answer := range map[string]func(n int, r request, b *body) error{
		"it drops everything": func(n int, _ request, b *body) error {
			if n > 3 {
				b.end, b.fail = b.from+10, io.ErrUnexpectedEOF
			}
			return nil
		},
		"it refuses": func(n int, _ request, _ *body) error { return errOf(n > 3, errs.Denied) },
		"it is busy": func(n int, _ request, _ *body) error {
			return errOf(n > 3, &fetch.Busy{After: time.Minute, Err: errs.Unavailable})
		},
		"it stalls": func(n int, _ request, b *body) error {
			if n > 3 {
				b.stalls, b.stall = true, 1000
			}
			return nil
		},
		"it ignores ranges, then refuses": func(n int, _ request, b *body) error {
			b.Partial, b.from, b.end, b.Length = false, 0, 5*mib, 20*mib
			return errOf(n > 1, errs.NotFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad := &fake{name: "mirror", size: 20 * mib, rate: 100 * mib, answer: answer}
				good := &fake{name: "origin", size: 20 * mib, rate: 100 * mib, latency: time.Millisecond}
				if err := fetched(t.Context(), t, fetch.Options{Chunk: mib}, 0, bad, good); err != nil {
					t.Fatal(err)
				}
				if good.requests[0].first == 0 || good.sent >= good.size {
					t.Errorf("it began anew: %v", good.requests)
				}
				if good.most < 2 {
					t.Errorf("%d connections to the next host", good.most)
				}
				asked := len(bad.requests)
				if asked > 40 {
					t.Errorf("the failed host was asked %d times", asked)
				}
			})
		})
	}
}

func TestFailureTellsOfEachHost(t *testing.T) {
	err := ended(t, fetch.Options{},
		&fake{name: "a.example", size: mib, answer: func(int, request, *body) error { return errs.NotFound }},
		&fake{name: "b.example", size: mib, answer: func(int, request, *body) error { return errors.New("reset") }},
		&fake{name: "c.example", size: mib, answer: func(int, request, *body) error { return errs.Denied }},
	)
	if errs.Of(err) != errs.Unavailable {
		t.Errorf("kind %q", errs.Of(err))
	}
	for _, text := range []string{"a.example: not found", "b.example: reset", "c.example: permission denied"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in %q", text, err)
		}
	}
}

func TestServedNamesTheHosts(t *testing.T) {
	bad := &fake{name: "a", size: 8 * mib, answer: func(int, request, *body) error { return errs.NotFound }}
	good := &fake{name: "b", size: 8 * mib}
	r := fetch.New(fetch.Options{}).Open(t.Context(), []fetch.Source{bad, good}, good.size, 0)
	defer r.Close()
	if err := read(r, good.size, 0); err != nil {
		t.Fatal(err)
	}
	if got := r.Served(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("got %v", got)
	}
}

package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/rpc"
)

func serve(t testing.TB, h rpc.Handler) (path string, s *rpc.Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := rpc.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s = rpc.NewServer(h)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if !s.Shutdown(ctx, 10*time.Second) {
			t.Error("calls did not end")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path, s
}

type text struct{ S string }

func echo(_ context.Context, c *rpc.Call) (any, error) {
	var v text
	err := c.Decode(&v)
	return v, err
}

func TestCallsAnswerWhateverTheirSize(t *testing.T) {
	path, _ := serve(t, echo)
	for _, size := range []int{0, 1, 4090, 4096, 32 << 10, 1 << 20, 20 << 20} {
		want := strings.Repeat("x", size)
		var got text
		if err := rpc.Do(t.Context(), path, "Echo", text{want}, &got); err != nil {
			t.Fatal(err)
		}
		if got.S != want {
			t.Errorf("%d bytes came back as %d", size, len(got.S))
		}
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	path, _ := serve(t, func(context.Context, *rpc.Call) (any, error) {
		return nil, fmt.Errorf("container c: %w", errs.Conflict)
	})
	err := rpc.Do(t.Context(), path, "X", nil, nil)
	if !errors.Is(err, errs.Conflict) || err.Error() != "container c: conflict" {
		t.Errorf("got %v", err)
	}
	if err := rpc.Do(t.Context(), path+"-none", "X", nil, nil); !errors.Is(err, errs.Unavailable) {
		t.Errorf("no server: %v", err)
	}
}

func TestACallThatNoServerHasReadIsToldFromOneThatIsLost(t *testing.T) {
	long := text{strings.Repeat("x", 1<<20)} // more than a socket holds
	for name, test := range map[string]struct {
		serve    func(*net.UnixListener)
		request  any
		notHeard bool
	}{
		"refused":         {func(l *net.UnixListener) { l.Close() }, nil, true},
		"not accepted":    {func(l *net.UnixListener) { time.AfterFunc(50*time.Millisecond, func() { l.Close() }) }, nil, true},
		"not read":        {func(l *net.UnixListener) { go take(l, 0) }, nil, true},
		"half of it read": {func(l *net.UnixListener) { go take(l, 100) }, long, true},
		"read":            {func(l *net.UnixListener) { go take(l, 4096) }, nil, false},
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := rpc.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		test.serve(l)
		err = rpc.Do(t.Context(), path, "X", test.request, nil)
		if !errors.Is(err, errs.Unavailable) || errors.Is(err, rpc.ErrNotHeard) != test.notHeard {
			t.Errorf("%s: %v", name, err)
		}
		l.Close()
	}
	if err := rpc.Do(t.Context(), filepath.Join(t.TempDir(), "s"), "X", nil, nil); !errors.Is(err, rpc.ErrNotHeard) {
		t.Errorf("no socket: %v", err)
	}
}

// take accepts a connection, reads so much of it at most, and dies.
func take(l *net.UnixListener, n int) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	if n > 0 {
		_, _ = conn.Read(make([]byte, n)) // what the client gets tells
	}
	conn.Close()
}

func TestStagesComeBackWhereTheyAreWanted(t *testing.T) {
	path, _ := serve(t, func(ctx context.Context, _ *rpc.Call) (any, error) {
		return text{"x"}, stage.Run(ctx, "work", func(context.Context) error { return nil })
	})
	var got text
	if err := rpc.Do(t.Context(), path, "X", nil, &got); err != nil || got.S != "x" {
		t.Errorf("nobody asks: %v, %v", got, err)
	}
	var log stage.Log
	if err := rpc.Do(stage.With(t.Context(), &log), path, "X", nil, &got); err != nil || got.S != "x" {
		t.Errorf("asked: %v, %v", got, err)
	}
	if all := log.Passed(); len(all) != 1 || all[0].Name != "work" || all[0].Begun.IsZero() {
		t.Errorf("stages: %+v", all)
	}
}

func TestMalformedRequestIsInvalid(t *testing.T) {
	path, _ := serve(t, echo)
	if err := rpc.Do(t.Context(), path, "Echo", 1, nil); !errors.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
	if err := rpc.Do(t.Context(), path, "", text{}, nil); !errors.Is(err, errs.Invalid) {
		t.Errorf("no verb: %v", err)
	}
}

func TestClosingCancelsTheCall(t *testing.T) {
	started, cancelled := make(chan bool), make(chan bool)
	path, _ := serve(t, func(ctx context.Context, _ *rpc.Call) (any, error) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if err := rpc.Do(ctx, path, "Wait", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-cancelled
}

func TestFilesArriveAndAreClosed(t *testing.T) {
	path, _ := serve(t, func(_ context.Context, c *rpc.Call) (any, error) {
		files := c.TakeFiles()
		if len(files) != 1 {
			return nil, fmt.Errorf("%d files", len(files))
		}
		defer files[0].Close()
		_, err := files[0].WriteString("hello")
		return nil, err
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := rpc.Do(t.Context(), path, "Write", nil, nil, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestItemsComeInOrderBeforeTheAnswer(t *testing.T) {
	path, _ := serve(t, func(_ context.Context, c *rpc.Call) (any, error) {
		for i := range 3 {
			if err := c.Send(i); err != nil {
				return nil, err
			}
		}
		return "end", nil
	})
	var items []string
	var last string
	err := rpc.Stream(t.Context(), path, "Count", nil, &last, func(b []byte) error {
		items = append(items, strings.TrimSpace(string(b)))
		return nil
	})
	if err != nil || strings.Join(items, "") != "012" || last != "end" {
		t.Errorf("got %v %q %v", items, last, err)
	}
}

func TestItemsOfBytesComeAsTheyAre(t *testing.T) {
	long := strings.Repeat("\x00\xff\n", 50000)
	path, _ := serve(t, func(_ context.Context, c *rpc.Call) (any, error) {
		return "end", errors.Join(c.SendBytes(7, []byte(long)), c.SendBytes(8, nil))
	})
	var got []string
	err := rpc.Stream(t.Context(), path, "X", nil, nil, func(b []byte) error {
		got = append(got, string(b))
		return nil
	})
	if err != nil || len(got) != 2 || got[0] != "\x07"+long || got[1] != "\x08" {
		t.Errorf("%d items, %v", len(got), err)
	}
}

func TestShutdownCancelsLongCallsAndAwaitsOthers(t *testing.T) {
	release, running := make(chan bool), make(chan bool, 2)
	path, s := serve(t, func(ctx context.Context, c *rpc.Call) (any, error) {
		if c.Verb == "Events" {
			c.Long()
			running <- true
			<-ctx.Done()
			return nil, ctx.Err()
		}
		running <- true
		<-release
		return text{"done"}, ctx.Err()
	})
	errEvents, errCall := make(chan error, 1), make(chan error, 1)
	var got text
	go func() { errEvents <- rpc.Do(t.Context(), path, "Events", nil, nil) }()
	go func() { errCall <- rpc.Do(t.Context(), path, "Call", nil, &got) }()
	<-running
	<-running
	ended := make(chan bool)
	go func() { ended <- s.Shutdown(t.Context(), time.Second) }()
	if err := <-errEvents; !errors.Is(err, errs.Unavailable) {
		t.Errorf("the long call was not cancelled: %v", err)
	}
	close(release)
	if err := <-errCall; err != nil || got.S != "done" {
		t.Errorf("the short call: %q, %v", got.S, err)
	}
	if !<-ended {
		t.Error("calls are left")
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	path, _ := serve(b, echo)
	var got text
	for b.Loop() {
		if err := rpc.Do(b.Context(), path, "Echo", text{"x"}, &got); err != nil {
			b.Fatal(err)
		}
	}
}

package runtime_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
)

// serveLate answers at path some time from now.
func serveLate(t *testing.T, path string, h rpc.Handler) {
	t.Helper()
	s, served := rpc.NewServer(h), make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() {
		l, err := rpc.Listen(path)
		if err != nil {
			served <- err
			return
		}
		served <- s.Serve(l)
	})
	t.Cleanup(func() {
		s.Shutdown(context.Background(), 10*time.Second)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// once are the verbs that must not be done twice.
func once(c *runtime.Client) map[string]func(context.Context) error {
	r := runtime.ExecRequest{ID: "c", Process: &specs.Process{Args: []string{"x"}}}
	return map[string]func(context.Context) error{
		runtime.VerbExec: func(ctx context.Context) error { _, err := c.Exec(ctx, r); return err },
		runtime.VerbExecIO: func(ctx context.Context) error {
			_, err := c.ExecStream(ctx, r, runtime.ExecIO{}, func() {})
			return err
		},
		runtime.VerbPause:      func(ctx context.Context) error { return c.Pause(ctx, "c") },
		runtime.VerbResume:     func(ctx context.Context) error { return c.Resume(ctx, "c") },
		runtime.VerbCheckpoint: func(ctx context.Context) error { return c.Checkpoint(ctx, runtime.CheckpointRequest{ID: "c"}) },
	}
}

func TestACallWaitsForAServerThatIsNotThereYet(t *testing.T) {
	for _, left := range []bool{false, true} { // by a server that has gone
		for verb := range once(nil) {
			t.Run(verb, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "s")
				if left {
					l, err := rpc.Listen(path)
					if err != nil {
						t.Fatal(err)
					}
					l.Close()
				}
				var calls atomic.Int32
				serveLate(t, path, func(context.Context, *rpc.Call) (any, error) { calls.Add(1); return runtime.ExecResult{}, nil })
				if err := once(runtime.Dial(path))[verb](t.Context()); err != nil || calls.Load() != 1 {
					t.Errorf("socket left %t: %d calls, %v", left, calls.Load(), err)
				}
			})
		}
	}
}

func TestACallWaitsNoLongerThanItsContext(t *testing.T) {
	for verb, call := range once(runtime.Dial(filepath.Join(t.TempDir(), "s"))) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := call(ctx); !errors.Is(err, errs.Unavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", verb, err)
		}
		cancel()
	}
}

func TestACallThatMayHaveBeenHeardIsNotRepeated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			_, _ = conn.Read(make([]byte, 4096)) // and dies
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	verbs := once(runtime.Dial(path))
	for verb, call := range verbs {
		if err := call(t.Context()); !errors.Is(err, errs.Unavailable) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if n := int(calls.Load()); n != len(verbs) {
		t.Errorf("%d calls of %d", n, len(verbs))
	}
}

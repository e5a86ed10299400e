package libct

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

func TestCreateWaitsForStart(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "c1", baseSpec(t, "c1", "/bin/sh", "-c", "echo pid $$; hostname; exit 7"))
	if err := unix.PidfdSendSignal(int(b.p.PIDFD.Fd()), 0, nil, 0); err != nil {
		t.Fatalf("no process waits: %v", err)
	}
	out, code := b.output()
	if code != 7 || out != "pid 1\nbox\n" {
		t.Errorf("got %q, exit %d", out, code)
	}
	if err := e.Start(t.Context(), "c1", OpenGate); !errors.Is(err, errs.Conflict) {
		t.Errorf("second start: %v", err)
	}
	if _, err := e.Create(t.Context(), "c1", b.spec, runtime.ProcessIO{}); !errors.Is(err, errs.Exists) {
		t.Errorf("second create: %v", err)
	}
}

func TestStartAfterAWorkerWasKilledAtTheGate(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "g1", baseSpec(t, "g1", "/bin/sh", "-c", "echo through; exit 7"))
	for range 3 {
		dead := make(chan struct{})
		go func() {
			defer close(dead)
			_ = e.Start(context.Background(), "g1", func(path string) (int, error) {
				fd, err := OpenGate(path)
				if err != nil {
					t.Error(err)
				}
				_ = unix.Close(fd) // as the kernel does for the dead
				goruntime.Goexit()
				return fd, err
			})
		}()
		<-dead
		ended := []unix.PollFd{{Fd: int32(b.p.PIDFD.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 20); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal("the process has ended", err)
		}
	}
	if out, code := b.output(); code != 7 || out != "through\n" {
		t.Errorf("got %q, exit %d", out, code)
	}
}

func TestCreateFailureLeavesNothing(t *testing.T) {
	e := newEngine(t)
	spec := baseSpec(t, "bad", "/nope")
	_, err := e.Create(t.Context(), "bad", spec, runtime.ProcessIO{})
	if err == nil || !strings.Contains(err.Error(), "/nope") {
		t.Fatalf("got %v", err)
	}
	spec.Process.Args = []string{"/bin/true"}
	b := create(t, e, "bad", spec)
	if _, code := b.output(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestDestroyKillsAndIsIdempotent(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "d1", baseSpec(t, "d1", "/bin/sleep", "1000")).start()
	for range 2 {
		if err := e.Destroy(t.Context(), "d1"); err != nil {
			t.Fatal(err)
		}
	}
	b.waited = true
	if code := wait(t, b.p); code != 137 {
		t.Errorf("exit %d", code)
	}
}

func TestAnotherEngineTakesOver(t *testing.T) {
	e := newEngine(t)
	b := create(t, e, "r1", baseSpec(t, "r1", "/bin/sleep", "1000"))
	again, err := New(e.opts)
	if err != nil {
		t.Fatal(err)
	}
	b.e = again
	b.start()
	testutil.Await(t, 10*time.Second, func() error { // it is through the gate, and about to execute the program
		if comm := b.sh("cat /proc/1/comm"); comm != "sleep" {
			return fmt.Errorf("the first process is %q", comm)
		}
		return nil
	})
	if err := again.Signal(t.Context(), "r1", int(unix.SIGKILL), false); err != nil {
		t.Fatal(err)
	}
	b.waited = true
	if code := wait(t, b.p); code != 137 {
		t.Errorf("exit %d", code)
	}
	if err := again.Signal(t.Context(), "r1", int(unix.SIGTERM), false); err != nil {
		t.Errorf("signal to the stopped: %v", err)
	}
}

package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// newGuard returns a guard whose berth-runtime is this program, in PATH.
func newGuard(t *testing.T) *guard {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, state := t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "berth-runtime")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	g := &guard{state: state, driver: "cgroupfs", client: runtime.Dial(filepath.Join(state, "runtime.sock")), patience: startPatience, usual: runtimeStart}
	t.Cleanup(func() {
		if v, err := g.client.Version(context.Background()); err == nil {
			_ = unix.Kill(v.WorkerPID, unix.SIGKILL) // it may have ended
		}
	})
	return g
}

// version waits until a berth-runtime other than the given process answers.
func (g *guard) version(t *testing.T, not int) runtime.Version {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runtimeStart)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		v, err := g.client.Version(ctx)
		if err == nil && v.WorkerPID != not {
			return v
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no berth-runtime beside %d: %v", not, err)
		}
	}
}

func TestEnsureStartsOneRuntimeInASessionOfItsOwn(t *testing.T) {
	g := newGuard(t)
	for range 2 {
		if err := g.ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	v := g.version(t, 0)
	if v.CgroupDriver != "cgroupfs" {
		t.Errorf("cgroup driver %q", v.CgroupDriver)
	}
	if session, err := unix.Getsid(v.WorkerPID); err != nil || session != v.WorkerPID {
		t.Errorf("its session is %d, %v", session, err)
	}
}

func TestTheGuardStartsADeadRuntimeAgainAndLeavesALiveOneBehind(t *testing.T) {
	g := newGuard(t)
	if err := g.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.run(ctx) }()
	first := g.version(t, 0)
	if err := unix.Kill(first.WorkerPID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := g.version(t, first.WorkerPID)
	cancel()
	<-done
	if v := g.version(t, 0); v.WorkerPID != second.WorkerPID {
		t.Errorf("after the guard: %d, not %d", v.WorkerPID, second.WorkerPID)
	}
}

func TestARuntimeThatIsSlowIsWaitedFor(t *testing.T) {
	t.Setenv(slowRuntime, "300ms")
	g := newGuard(t)
	g.patience, g.usual = time.Minute, 50*time.Millisecond
	if err := g.ensure(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestARuntimeThatNeverAnswersIsNamedWithItsLog(t *testing.T) {
	t.Setenv(slowRuntime, "2s")
	g := newGuard(t)
	g.patience, g.usual = 100*time.Millisecond, 50*time.Millisecond
	if err := g.ensure(t.Context()); err == nil || !strings.Contains(err.Error(), g.log()) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutTheProgramTheErrorNamesIt(t *testing.T) {
	g := &guard{state: t.TempDir(), client: runtime.Dial(filepath.Join(t.TempDir(), "runtime.sock"))}
	t.Setenv("PATH", t.TempDir())
	if err := g.ensure(t.Context()); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "berth-runtime") {
		t.Errorf("got %v", err)
	}
}

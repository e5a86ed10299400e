package supervisor

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
)

// leavingEngine is one whose caller goes away while it creates.
type leavingEngine struct {
	*hostEngine
	leave context.CancelFunc
	made  runtime.Process
}

func (e *leavingEngine) Create(ctx context.Context, id string, spec *specs.Spec, io runtime.ProcessIO) (p runtime.Process, err error) {
	e.made, err = e.hostEngine.Create(ctx, id, spec, io)
	e.leave()
	return e.made, err
}

func countFDs(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestCreateWhoseCallerHasGoneLeavesNothing(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	e := &leavingEngine{leave: leave}
	w := lone(t, func(dir string) runtime.Engine { e.hostEngine = &hostEngine{dir}; return e })
	before, began := countFDs(t), time.Now()
	_, err := w.create(ctx, runtime.CreateRequest{ID: "c", Spec: hostSpec("/bin/true")})
	if !errors.Is(err, errGone) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > reapLimit {
		t.Errorf("took %v", took)
	}
	if err := unix.Waitid(unix.P_PID, e.made.PID, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("its process is still ours: %v", err)
	}
	// The socket that nobody reads may hold copies, but not of this process.
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

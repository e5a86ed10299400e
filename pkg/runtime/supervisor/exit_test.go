package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/test/testutil"
)

// leaver is a container whose first process leaves another behind, which is
// still in its group; the number of that one comes to file.
func leaver(file string) *specs.Spec {
	return hostSpec("/bin/sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! >"+file)
}

func leftProcess(t *testing.T, file string) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// leave runs a leaver to its end.
func leave(t *testing.T, w *worker, spec *specs.Spec) {
	t.Helper()
	if _, err := w.create(t.Context(), runtime.CreateRequest{ID: "c", Spec: spec}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	awaitExit(t, w, "c")
}

func awaitExit(t *testing.T, w *worker, id string) {
	t.Helper()
	c, err := w.find(id)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not exit")
	}
}

func plainEngine(dir string) runtime.Engine { return &hostEngine{dir} }

func TestProcessesInAForeignPIDNamespaceEndWithTheFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	leave(t, lone(t, plainEngine), leaver(file))
	awaitEnd(t, leftProcess(t, file))
}

func TestOnlyTheKernelEndsProcessesOfAPrivatePIDNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	spec := leaver(file)
	spec.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}}
	leave(t, lone(t, plainEngine), spec)
	pid := leftProcess(t, file) // this engine makes no namespaces
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Errorf("killed without need: %v", err)
	}
}

func TestContainerFoundDeadLeavesNoProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	w := newLone(t, plainEngine)
	if err := w.o.makeDirs(); err != nil {
		t.Fatal(err)
	}
	// What a worker that was killed together with its anchor leaves.
	e := &hostEngine{w.o.engineDir()}
	p, err := e.begin(leaver(file).Process.Args, runtime.ProcessIO{})
	if err != nil {
		t.Fatal(err)
	}
	testutil.Await(t, 20*time.Second, func() error {
		if _, err := pidfd.Look(int(p.PIDFD.Fd())); err != nil {
			return fmt.Errorf("it does not end: %w", err)
		}
		return nil
	})
	dir := filepath.Join(w.o.containers(), "c")
	rec := &record{Version: recordVersion, SharedPID: true, Begun: 1, Container: runtime.Container{ID: "c", PID: p.PID, State: runtime.Running}}
	rec.Stdio.ID, rec.Stdio.Dir = "c", dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.path("c", "pid"), []byte(strconv.Itoa(p.PID)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := statefile.Write(filepath.Join(dir, recordName), rec); err != nil {
		t.Fatal(err)
	}
	if err := w.open(store{}); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	awaitExit(t, w, "c")
	awaitEnd(t, leftProcess(t, file))
	pidfd.Reap(int(p.PIDFD.Fd()))
	if err := w.live(t.Context(), "c", nil); errs.Of(err) != errs.Conflict {
		t.Errorf("got %v", err)
	}
}

// scopeEngine counts memory kills until its processes are killed, as a scope of systemd
// may.
type scopeEngine struct {
	*hostEngine
	signalled bool
}

func (e *scopeEngine) Signal(ctx context.Context, id string, sig int, all bool) error {
	e.signalled = true
	return e.hostEngine.Signal(ctx, id, sig, all)
}

func (e *scopeEngine) OOMKills(id string) (int, error) {
	if e.signalled {
		return 0, fmt.Errorf("memory cgroup of container %s: %w", id, errs.NotFound)
	}
	return 1, nil
}

func TestMemoryKillsAreCountedBeforeAnythingElse(t *testing.T) {
	w := lone(t, func(dir string) runtime.Engine { return &scopeEngine{hostEngine: &hostEngine{dir}} })
	leave(t, w, hostSpec("/bin/true"))
	if all := w.list(); !all[0].OOMKilled {
		t.Errorf("got %+v", all[0])
	}
}

// countingEngine is asked for the count of memory kills.
type countingEngine struct {
	*hostEngine
	asked atomic.Int32
}

func (e *countingEngine) OOMKills(string) (int, error) {
	e.asked.Add(1)
	return 0, nil
}

// A scope of systemd may go with its last process: who looks only then, and never
// did before, cannot know what to miss.
func TestMemoryKillsAreCountedFromWhenAContainerIsTakenOver(t *testing.T) {
	e := &countingEngine{}
	w := newLone(t, func(dir string) runtime.Engine { e.hostEngine = &hostEngine{dir}; return e })
	if err := w.o.makeDirs(); err != nil {
		t.Fatal(err)
	}
	p, err := (&hostEngine{w.o.engineDir()}).begin([]string{"/bin/sleep", "1000"}, runtime.ProcessIO{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(p.PID, unix.SIGKILL) }) // it has ended if all is well
	dir := filepath.Join(w.o.containers(), "c")
	rec := &record{Version: recordVersion, Container: runtime.Container{ID: "c", PID: p.PID, State: runtime.Running}}
	rec.Stdio.ID, rec.Stdio.Dir = "c", dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := statefile.Write(filepath.Join(dir, recordName), rec); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(p.PIDFD.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.open(store{"c": &entry{ID: "c", FDs: map[string]int{namePidfd: fd}}}); err != nil {
		t.Fatal(err)
	}
	defer w.close()
	testutil.Await(t, 20*time.Second, func() error {
		if n := e.asked.Load(); n != 1 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	if err := unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	awaitExit(t, w, "c")
	if n := e.asked.Load(); n != 2 {
		t.Errorf("asked %d times after the end", n)
	}
}

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"testing"

	"github.com/berth-run/berth/pkg/runtime"
)

// What people watch goes on although who serves them is replaced.
func TestTheForegroundOutlivesTheDaemons(t *testing.T) {
	for what, replace := range map[string]func(*testing.T){
		"berthd is killed":    func(t *testing.T) { withoutDaemon(t, berth.Kill, func() {}) },
		"berthd is restarted": func(t *testing.T) { withoutDaemon(t, berth.StopDaemon, func() {}) },
		"the worker is killed": func(t *testing.T) {
			replaceWorker(t, func(v runtime.Version) (int, syscall.Signal) { return v.WorkerPID, syscall.SIGKILL })
		},
		"the worker is upgraded": func(t *testing.T) {
			replaceWorker(t, func(v runtime.Version) (int, syscall.Signal) { return v.AnchorPID, syscall.SIGUSR2 })
		},
	} {
		t.Run(what, func(t *testing.T) {
			name := named(t)
			run := watch(t, "run", "--name", name, busybox, "/bin/sh", "-c", "echo ready; while [ ! -e /go ]; do sleep 0.02; done; echo going; exit 7")
			eventually(t, func() error { return wantText(run.out.String(), "ready") })
			attached, followed := watch(t, "attach", "--no-stdin", name), watch(t, "logs", "-f", name)
			typed := named(t)
			cat := watch(t, "run", "--rm", "-i", "--name", typed, busybox, "cat")
			if _, err := fmt.Fprintln(cat.in, "before"); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				return errors.Join(wantText(followed.out.String(), "ready"), wantText(cat.out.String(), "before"))
			})
			replace(t)
			command(t, "exec", name, "touch", "/go")
			wantEnd(t, run, end{"ready\ngoing\n", "", 7})
			wantEnd(t, followed, end{"ready\ngoing\n", "", 0})
			if code := exitCode(t, attached.Wait()); code != 7 || attached.errOut.String() != "" {
				t.Errorf("attach: exit %d, %q", code, attached.errOut.String())
			}
			if _, err := fmt.Fprintln(cat.in, "after"); err != nil {
				t.Fatal(err)
			}
			if err := cat.in.Close(); err != nil {
				t.Fatal(err)
			}
			wantEnd(t, cat, end{"before\nafter\n", "", 0})
			command(t, "rm", name) // not --rm: attach may find its way back last, and asks for the exit code then
			if c := listed(t, typed); c.ID != "" {
				t.Errorf("left is %v", c)
			}
		})
	}
}

// wantEnd waits until the command ends.
func wantEnd(t *testing.T, w *watched, want end) {
	t.Helper()
	code := exitCode(t, w.Wait())
	if got := (end{w.out.String(), w.errOut.String(), code}); got != want {
		t.Errorf("%s: got %v, want %v", w.Args[1], got, want)
	}
}

// watched is a berth command that runs, and what it has written so far.
type watched struct {
	*exec.Cmd
	in     io.WriteCloser
	out    lockedBuffer
	errOut bytes.Buffer
}

func watch(t *testing.T, args ...string) *watched {
	t.Helper()
	w := &watched{Cmd: berth.Command(t.Context(), args...)}
	w.Stdout, w.Stderr = &w.out, &w.errOut
	var err error
	if w.in, err = w.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// replaceWorker has berth-runtime's worker replaced, and returns once it is.
func replaceWorker(t *testing.T, by func(runtime.Version) (pid int, s syscall.Signal)) {
	t.Helper()
	before, err := berth.Supervisor().Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(by(before)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		now, err := berth.Supervisor().Version(t.Context())
		if err == nil && now.WorkerPID == before.WorkerPID {
			err = fmt.Errorf("worker %d is still there", now.WorkerPID)
		}
		return err
	})
}

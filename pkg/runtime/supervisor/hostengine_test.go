package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// hostEngine makes plain processes of the host: real children with real pidfds,
// without namespaces. A created process waits at a FIFO, its gate.
type hostEngine struct{ dir string }

func (e *hostEngine) path(id, what string) string { return filepath.Join(e.dir, id+"."+what) }

func (e *hostEngine) Create(_ context.Context, id string, spec *specs.Spec, io runtime.ProcessIO) (runtime.Process, error) {
	if err := unix.Mkfifo(e.path(id, "gate"), 0o600); err != nil {
		return runtime.Process{}, err
	}
	p, err := e.begin(append([]string{os.Args[0], "gate", e.path(id, "gate")}, spec.Process.Args...), io)
	if err != nil {
		return runtime.Process{}, err
	}
	return p, os.WriteFile(e.path(id, "pid"), []byte(strconv.Itoa(p.PID)), 0o600)
}

func (e *hostEngine) begin(args []string, io runtime.ProcessIO) (runtime.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return runtime.Process{}, err
	}
	defer null.Close()
	files := []*os.File{io.Stdin, io.Stdout, io.Stderr}
	for i, f := range files {
		if f == nil {
			files[i] = null
		}
	}
	pidfd := -1
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{Env: cleanEnv(), Files: files, Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}})
	if err != nil {
		return runtime.Process{}, err
	}
	pid := p.Pid
	_ = p.Release()
	return runtime.Process{PID: pid, PIDFD: os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

func (e *hostEngine) Start(_ context.Context, id string, _ runtime.OpenGate) error {
	gate, err := os.OpenFile(e.path(id, "gate"), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("start %s: %w: %w", id, errs.Conflict, err)
	}
	defer gate.Close()
	if _, err := gate.WriteString("x"); err != nil {
		return err
	}
	for range 2000 { // until it has been read
		if n, err := unix.IoctlGetInt(int(gate.Fd()), unix.TIOCINQ); err != nil || n == 0 {
			return os.Remove(e.path(id, "gate"))
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	return errs.Timeout
}

func (e *hostEngine) pid(id string) int {
	data, err := os.ReadFile(e.path(id, "pid"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}

func (e *hostEngine) Exec(_ context.Context, _, _ string, p *specs.Process, io runtime.ProcessIO) (runtime.ExecProcess, error) {
	started, err := e.begin(p.Args, io)
	pid := started.PID
	return runtime.ExecProcess{
		Process: started,
		Kill:    func() error { return unix.Kill(-pid, unix.SIGKILL) },
		Release: func() error { return nil },
	}, err
}

func (e *hostEngine) EndExec(context.Context, string, string) error { return nil }

func (e *hostEngine) Destroy(ctx context.Context, id string) error {
	_ = e.Signal(ctx, id, 9, true)
	matches, err := filepath.Glob(e.path(id, "*"))
	for _, m := range matches {
		err = errors.Join(err, os.Remove(m))
	}
	return err
}

func (e *hostEngine) Signal(_ context.Context, id string, sig int, all bool) error {
	pid := e.pid(id)
	if pid == 0 {
		return nil
	}
	if all {
		pid = -pid
	}
	if err := unix.Kill(pid, unix.Signal(sig)); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func (e *hostEngine) Update(context.Context, runtime.UpdateRequest) error { return nil }
func (e *hostEngine) Freeze(context.Context, string, bool) error          { return nil }
func (e *hostEngine) OOMKills(string) (int, error)                        { return 0, nil }

func (e *hostEngine) CreatePod(context.Context, runtime.PodRequest) (int, error) { return 0, nil }
func (e *hostEngine) DeletePod(context.Context, runtime.PodRequest, int) error   { return nil }

func (e *hostEngine) CanCheckpoint(context.Context) error { return nil }

// Checkpoint notes the program; Restore begins it anew.
func (e *hostEngine) Checkpoint(_ context.Context, r runtime.CheckpointRequest, fifos map[string]string) error {
	if fifos["stdout"] == "" || fifos["stderr"] == "" {
		return fmt.Errorf("streams %q: %w", fifos, errs.Invalid)
	}
	return os.WriteFile(filepath.Join(r.Dir, "args"), []byte(strings.Join(r.Spec.Process.Args, "\n")), 0o600)
}

func (e *hostEngine) Restore(_ context.Context, id string, _ *specs.Spec, io runtime.ProcessIO, dir string) (runtime.Process, error) {
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		return runtime.Process{}, err
	}
	p, err := e.begin(strings.Split(string(args), "\n"), io)
	if err != nil {
		return runtime.Process{}, err
	}
	return p, os.WriteFile(e.path(id, "pid"), []byte(strconv.Itoa(p.PID)), 0o600)
}

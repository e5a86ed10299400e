package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/stdio"
)

// Bounds of an exec.
const (
	// defaultOutput is what is kept of each stream.
	defaultOutput = 16 << 20
	// outputGrace is how long output is read on after the process has ended, in
	// case that another one holds the pipes.
	outputGrace = 250 * time.Millisecond
)

func (w *worker) exec(ctx context.Context, call *rpc.Call, m runtime.CaptureMessage) (runtime.ExecResult, error) {
	r := m.ExecRequest
	c, err := w.find(r.ID)
	if err == nil {
		err = c.mayExec(&r, false)
	}
	if err != nil {
		return runtime.ExecResult{}, err
	}
	if r.MaxOutput <= 0 {
		r.MaxOutput = defaultOutput
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	var piece func(stream int, data []byte) error
	if m.Pieces {
		piece = func(stream int, data []byte) error { return call.SendBytes(byte(stream), data) }
	}
	return w.capture(ctx, &r, piece)
}

// mayExec looks whether the container and the request allow an exec, and
// completes the process.
func (c *container) mayExec(r *runtime.ExecRequest, terminal bool) error {
	if s := c.get().State; s != runtime.Running {
		return fmt.Errorf("exec in container %s: it is %s: %w", r.ID, s, errs.Conflict)
	}
	if r.Process == nil || len(r.Process.Args) == 0 || r.Process.Terminal != terminal {
		return fmt.Errorf("exec in container %s: process without arguments, or a terminal on one side alone: %w", r.ID, errs.Invalid)
	}
	setEnv(r.Process, r.Env)
	return nil
}

// capture starts the process and stays with it to its end. piece, which may be nil,
// gets long output: see stdio.Capture.
func (w *worker) capture(ctx context.Context, r *runtime.ExecRequest, piece func(stream int, data []byte) error) (runtime.ExecResult, error) {
	capture, err := stdio.NewCapture()
	if err != nil {
		return runtime.ExecResult{}, err
	}
	defer capture.Close()
	execID := rand.Text()
	keptAs := execEntry(r.ID, execID)
	w.keeper.put(&entry{ID: keptAs}) // from here on a new worker ends it
	defer w.keeper.drop(keptAs)
	stdout, stderr := capture.Child()
	var p runtime.ExecProcess
	err = stage.Run(ctx, "spawn", func(ctx context.Context) (err error) {
		p, err = w.engine.Exec(ctx, r.ID, execID, r.Process, runtime.ProcessIO{Stdout: stdout, Stderr: stderr})
		return err
	})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && r.Timeout > 0 {
			return runtime.ExecResult{ExitCode: pidfd.Unknown, TimedOut: true}, nil
		}
		return runtime.ExecResult{}, err
	}
	capture.Begin(r.MaxOutput, piece)
	result, err := w.awaitExec(ctx, keptAs, &p)
	result.Stdout, result.Stderr = capture.End(outputGrace)
	if releaseErr := p.Release(); err == nil {
		err = releaseErr
	}
	if ctxErr := ctx.Err(); result.TimedOut && !(errors.Is(ctxErr, context.DeadlineExceeded) && r.Timeout > 0) {
		return runtime.ExecResult{}, fmt.Errorf("exec in container %s: %w: %w", r.ID, errGone, ctxErr)
	}
	return result, err
}

// awaitExec waits for the end of p, which it brings about when ctx ends. The
// anchor keeps the pidfd meanwhile, so that nobody else gets its number.
func (w *worker) awaitExec(ctx context.Context, keptAs string, p *runtime.ExecProcess) (runtime.ExecResult, error) {
	result := runtime.ExecResult{ExitCode: pidfd.Unknown}
	ended := make(chan int32, 1)
	w.watchExec(keptAs, p, func(exit int32) { ended <- exit })
	select {
	case result.ExitCode = <-ended:
		return result, nil
	case <-ctx.Done():
		result.TimedOut = true
	}
	err := p.Kill()
	select {
	case result.ExitCode = <-ended:
		return result, err
	case <-time.After(killLimit):
		return result, errors.Join(err, fmt.Errorf("exec does not end after SIGKILL: %w", errs.Timeout))
	}
}

// watchExec calls then with the exit code once p has ended and been reaped.
func (w *worker) watchExec(keptAs string, p *runtime.ExecProcess, then func(exit int32)) {
	fd := int(p.PIDFD.Fd())
	e := &entry{ID: keptAs, FDs: map[string]int{namePidfd: fd}}
	journal := ""
	if p.Settle != nil { // the anchor will be its parent, and tell its end
		journal, e.PID = w.o.journal(keptAs), p.PID
		e.Begun, _ = pidfd.Begun(p.PID) // it is there, dead or alive
	}
	w.keeper.put(e)
	settle(p.Process)
	w.exits.Watch(fd, func() {
		exit := exitCode(fd, journal, p.PID, e.Begun)
		pidfd.Reap(fd)
		w.keeper.drop(keptAs, namePidfd)
		_ = p.PIDFD.Close() // nothing was written to it
		then(exit)
	})
}

// execStream starts a process whose stdio is the caller's. Once it runs it needs
// no caller: its end is seen and its cgroup removed in any case.
func (w *worker) execStream(ctx context.Context, call *rpc.Call, m *runtime.ExecMessage) (any, error) {
	call.Long()
	c, err := w.find(m.ID)
	if err == nil {
		err = c.mayExec(&m.ExecRequest, m.Console)
	}
	if err != nil {
		return nil, err
	}
	io := runtime.ProcessIO{Width: m.Width, Height: m.Height}
	takeFiles(call, passed{m.Stdin, &io.Stdin}, passed{m.Stdout, &io.Stdout}, passed{m.Stderr, &io.Stderr}, passed{m.Console, &io.Console})
	execID := rand.Text()
	keptAs := execEntry(m.ID, execID)
	w.keeper.put(&entry{ID: keptAs}) // from here on a new worker ends it
	p, err := w.engine.Exec(ctx, m.ID, execID, m.Process, io)
	closeFiles(io.Stdin, io.Stdout, io.Stderr, io.Console)
	if err != nil {
		w.keeper.drop(keptAs)
		return nil, err
	}
	ended := make(chan runtime.ExecResult, 1)
	w.watchExec(keptAs, &p, func(exit int32) {
		if err := p.Release(); err != nil {
			slog.Warn("cgroup of an exec is left", "container", m.ID, "err", err)
		}
		w.keeper.drop(keptAs)
		ended <- runtime.ExecResult{ExitCode: exit}
	})
	if err := call.Send(nil); err != nil {
		return nil, err
	}
	select {
	case result := <-ended:
		return result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

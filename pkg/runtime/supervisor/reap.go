package supervisor

import (
	"errors"
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// reap takes all children that have ended: the worker, and those that a dead
// worker left. The ends of containers go into the journal first.
func (a *anchor) reap() {
	for {
		pid, exit := pidfd.Ended()
		if pid == 0 {
			return
		}
		a.takeMessages() // one may say whose end this is
		a.bury(pid, exit)
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// bury writes the journal.
func (a *anchor) bury(pid int, exit int32) {
	if pid == a.worker {
		slog.Info("worker has ended", "pid", pid, "exit", exit)
		a.worker = 0
		return
	}
	for id, e := range a.store {
		if e.PID != pid {
			continue
		}
		since, err := pidfd.Begun(pid)
		if err != nil || since != e.Begun {
			continue
		}
		if err := statefile.Write(a.o.journal(id), &obituary{PID: pid, Begun: since, Exit: exit}); err != nil {
			slog.Error("exit cannot be journalled", "container", id, "err", err)
		}
	}
}

// takeMessages applies what the worker has sent so far.
func (a *anchor) takeMessages() {
	for {
		select {
		case m, open := <-a.messages:
			if !open {
				a.unlink()
				return
			}
			a.store.apply(m)
		default:
			return
		}
	}
}

package supervisor

import (
	"errors"
	"log/slog"
	"strings"

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
	since, err := pidfd.Begun(pid)
	if err != nil {
		return
	}
	end := obituary{PID: pid, Begun: since, Exit: exit}
	for id, e := range a.store {
		if e.PID == pid && e.Begun == since {
			a.journal(id, end)
			return
		}
	}
	a.strangers = append(a.strangers, end)
	a.strangers = a.strangers[max(0, len(a.strangers)-maxStrangers):]
}

func (a *anchor) journal(id string, end obituary) {
	if err := statefile.Write(a.o.journal(id), &end); err != nil {
		slog.Error("exit cannot be journalled", "container", id, "err", err)
	}
}

// maxStrangers bounds how many ends are remembered of processes that the worker has
// not told of yet: what it says about a short-lived one may be read after the end.
const maxStrangers = 64

// apply does what the worker says.
func (a *anchor) apply(m *message) {
	a.store.apply(m)
	if _, kept := a.store[m.ID]; !kept && strings.HasPrefix(m.ID, execPrefix) {
		_ = forget(a.o.journal(m.ID)) // of an exec whose end is known, or the next worker does
		return
	}
	if m.Op != opPut || m.PID == 0 {
		return
	}
	for _, end := range a.strangers {
		if end.PID == m.PID && end.Begun == m.Begun {
			a.journal(m.ID, end)
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
			a.apply(m)
		default:
			return
		}
	}
}

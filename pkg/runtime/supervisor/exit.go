package supervisor

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
)

// watch calls exited when the container's first process ends.
func (w *worker) watch(c *container) {
	w.exits.Watch(c.pidfd, func() { w.exited(c) })
}

// exited learns how the container ended and tells it: the log has all that it
// wrote, then the record is on disk, then in memory, then subscribers hear.
func (w *worker) exited(c *container) {
	rec := c.rec.Load()
	// First of all: systemd removes a scope, and the count with it, soon after
	// its last process has ended.
	oom := w.oomKilled(c)
	exit := exitCode(c.pidfd, w.o.journal(rec.Container.ID), rec.Container.PID, rec.Begun)
	finished := time.Now()
	w.endOthers(c)
	c.stdio.Drain()
	w.stopped(c, exit, finished, oom)
}

func (w *worker) oomKilled(c *container) bool {
	kills, err := w.engine.OOMKills(c.id())
	if err != nil {
		slog.Warn("memory kills cannot be counted", "container", c.id(), "err", err)
	}
	return kills > 0
}

// endOthers kills what the first process has left, which the kernel does itself
// where that was the PID 1 of a namespace. A container that has exited must not
// hold a port that its next attempt needs.
func (w *worker) endOthers(c *container) {
	if !c.rec.Load().SharedPID {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	if err := w.engine.Signal(ctx, c.id(), int(unix.SIGKILL), true); err != nil {
		slog.Warn("processes that are left cannot be killed", "container", c.id(), "err", err)
	}
}

func (w *worker) stopped(c *container, exit int32, finished time.Time, oom bool) {
	id := c.id()
	if err := c.update(func(r *record) error {
		k := &r.Container
		k.State, k.PID, k.ExitCode, k.FinishedAt, k.OOMKilled = runtime.Stopped, 0, exit, finished, oom
		return nil
	}); err != nil {
		slog.Error("exit cannot be recorded", "container", id, "err", err)
		c.forceStopped(exit, finished, oom)
	}
	if c.pidfd >= 0 {
		pidfd.Reap(c.pidfd)
		w.keeper.drop(id, namePidfd)
		_ = c.handle.Close() // nothing was written to it
	}
	close(c.exited)
	w.events.Publish(runtime.Event{Type: runtime.Exited, Container: c.get()})
}

// forceStopped keeps an exit in memory where the disk does not take it.
func (c *container) forceStopped(exit int32, finished time.Time, oom bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := *c.rec.Load()
	k := &next.Container
	k.State, k.PID, k.ExitCode, k.FinishedAt, k.OOMKilled = runtime.Stopped, 0, exit, finished, oom
	c.rec.Store(&next)
}

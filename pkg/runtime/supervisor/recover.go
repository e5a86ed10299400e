package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
)

// recoverLimit bounds the engine's work on one container while recovering.
const recoverLimit = 30 * time.Second

// unfinished is a container that had not stopped when it was last seen.
type unfinished struct {
	*container
	gate int // that the last worker opened for its start, or -1
}

// recover fills the table from the records, and takes over the descriptors
// that the anchor kept. Nothing that it finds can stop it. It moves no output,
// which the pump may do once all are restored, and hears of no exit, which moves
// output: it returns what resume has to go on with. Lost execs are ended beside it,
// until ctx ends.
func (w *worker) recover(ctx context.Context, kept store) (all []unfinished) {
	ends, _ := filepath.Glob(w.o.journal(execPrefix + "*")) // the pattern is good
	for _, path := range ends {
		_ = forget(path) // nobody waits for it any more
	}
	for id, e := range kept {
		if strings.HasPrefix(id, execPrefix) {
			w.endExec(ctx, e)
			delete(kept, id)
		}
	}
	if err := statefile.Sweep(w.o.pods()); err != nil {
		slog.Error("what is half-written cannot be removed", "err", err)
	}
	dirs, err := os.ReadDir(w.o.containers())
	if err != nil {
		slog.Error("records cannot be listed", "err", err)
	}
	for _, d := range dirs {
		id := d.Name()
		u, err := w.recoverOne(id, kept[id])
		if err != nil {
			slog.Error("container cannot be recovered", "container", id, "err", err)
		}
		if u.container != nil {
			all = append(all, u)
		}
		delete(kept, id)
	}
	for id, e := range kept {
		e.close()
		w.keeper.drop(id)
	}
	return all
}

// endExec kills an exec whose caller lost the answer with the last worker, and on
// a goroutine that close waits for all that it started. The anchor keeps the
// entry until then: where this worker ends first, the next one tries again.
func (w *worker) endExec(ctx context.Context, e *entry) {
	if fd, ok := e.FDs[namePidfd]; ok {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may have ended
	}
	e.close()
	id, execID, ok := execOf(e.ID)
	if !ok {
		w.keeper.drop(e.ID)
		return
	}
	w.mu.Lock()
	w.lost[e.ID] = true
	w.mu.Unlock()
	w.ending.Go(func() {
		limited, cancel := context.WithTimeout(ctx, recoverLimit)
		defer cancel()
		err := w.engine.EndExec(limited, id, execID)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			slog.Error("exec cannot be ended", "container", id, "err", err)
		}
		w.mu.Lock()
		delete(w.lost, e.ID)
		w.mu.Unlock()
		w.keeper.drop(e.ID)
	})
}

func (w *worker) recoverOne(id string, e *entry) (unfinished, error) {
	dir := filepath.Join(w.o.containers(), id)
	_ = statefile.Sweep(dir) // goes with the directory at the latest
	rec := &record{}
	err := statefile.Read(filepath.Join(dir, recordName), rec)
	if err != nil || rec.Container.ID != id {
		// Its creation was cut short, or nobody can manage it any more.
		return unfinished{}, errors.Join(ignoreMissing(err), w.removeRest(id, dir, e))
	}
	c := &container{dir: dir, pidfd: -1, exited: make(chan struct{})}
	c.rec.Store(rec)
	w.mu.Lock()
	w.containers[id] = c
	w.mu.Unlock()
	if rec.Container.State == runtime.Stopped {
		close(c.exited)
		if e != nil {
			e.close()
			w.keeper.drop(id)
		}
		return unfinished{}, nil
	}
	return w.restore(c, e)
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (w *worker) removeRest(id, dir string, e *entry) error {
	ctx, cancel := context.WithTimeout(context.Background(), recoverLimit)
	defer cancel()
	if e != nil {
		e.close()
		w.keeper.drop(id)
	}
	return errors.Join(w.engine.Destroy(ctx, id), os.RemoveAll(dir), forget(w.o.journal(id)))
}

// restore takes over the descriptors of a container that had not stopped.
func (w *worker) restore(c *container, e *entry) (unfinished, error) {
	rec := c.rec.Load()
	var fds map[string]int
	gate := -1
	if e != nil {
		fds = e.FDs
		if fd, ok := fds[nameGate]; ok {
			gate = fd
			delete(fds, nameGate)
		}
		if fd, ok := fds[namePidfd]; ok {
			c.own(os.NewFile(uintptr(fd), namePidfd))
			delete(fds, namePidfd)
		}
	}
	io, err := w.pump.Restore(rec.Stdio, fds)
	if err != nil {
		// Without its log it is still to be watched, killed and deleted.
		slog.Error("stdio is lost", "container", c.id(), "err", err)
		without := rec.Stdio
		without.LogPath = ""
		io, err = w.pump.Restore(without, nil)
	}
	if err != nil {
		if gate >= 0 {
			_ = unix.Close(gate) // nothing is written to a gate
		}
		return unfinished{}, err
	}
	c.stdio = io
	return unfinished{c, gate}, nil
}

// resume goes on with a restored container.
func (w *worker) resume(u unfinished) {
	c, rec := u.container, u.rec.Load()
	if u.gate >= 0 {
		defer unix.Close(u.gate)
	}
	if c.pidfd < 0 {
		fd, err := pidfd.Open(rec.Container.PID, rec.Begun)
		if err != nil {
			w.ending.Go(func() { w.foundDead(c) }) // its log may be held up
			return
		}
		c.own(os.NewFile(uintptr(fd), namePidfd))
	}
	w.keep(c)
	_ = w.oomKilled(c) // from here on the engine misses those of a cgroup that goes
	if rec.Starting {
		w.startAgain(c, u.gate)
	}
	w.watch(c)
}

// foundDead is for a container that ended while nobody watched.
func (w *worker) foundDead(c *container) {
	rec := c.rec.Load()
	oom := w.oomKilled(c)
	exit, ok := journalled(w.o.journal(c.id()), rec.Container.PID, rec.Begun)
	if !ok {
		slog.Warn("exit code is unknown", "container", c.id())
	}
	w.endOthers(c)
	c.stdio.Drain()
	w.stopped(c, exit, time.Now(), oom)
}

// startAgainLimit bounds the wait for a process that has perhaps been let go, and
// of which nobody knows because anchor and worker were killed.
const startAgainLimit = 2 * time.Second

// startAgain repeats a Start that may have been cut short. The engine refuses
// it where the process is known to have been let go. The gate is that which the
// last worker opened, or -1.
func (w *worker) startAgain(c *container, gate int) {
	ctx, cancel := context.WithTimeout(context.Background(), startAgainLimit)
	defer cancel()
	open := func(path string) (int, error) { return w.keeper.openGate(c.id(), path) }
	if gate >= 0 {
		open = func(string) (int, error) { return unix.FcntlInt(uintptr(gate), unix.F_DUPFD_CLOEXEC, 0) }
	}
	if err := w.engine.Start(ctx, c.id(), open); err == nil {
		slog.Info("finished a start that was cut short", "container", c.id())
	}
	w.keeper.drop(c.id(), nameGate)
	if err := c.update(func(r *record) error { r.Starting = false; return nil }); err != nil {
		slog.Error("record cannot be written", "container", c.id(), "err", fmt.Errorf("after start: %w", err))
	}
}

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/resources"
)

// start lets the process go. errs.Conflict unless it is waiting for that: after a
// restart a start is repeated that may have been done.
func (c *container) start(ctx context.Context) error {
	if c.ended() {
		return fmt.Errorf("start: %w", c.stopped())
	}
	if err := c.run(ctx, "start", c.id); err != nil {
		return fmt.Errorf("start container %s: %w: %w", c.id, err, errs.Conflict)
	}
	return nil
}

// signal leaves the first process to the command, which may stand for another one
// in a virtual machine. Killing needs no command.
func (c *container) signal(ctx context.Context, sig int, all bool) error {
	if sig == int(unix.SIGKILL) {
		return c.kill(all)
	}
	if all {
		return c.signalAll(unix.Signal(sig))
	}
	if c.ended() {
		return nil
	}
	if err := c.run(ctx, "kill", c.id, strconv.Itoa(sig)); err != nil && !c.ended() {
		return fmt.Errorf("signal container %s: %w", c.id, err)
	}
	return nil
}

// signalAll signals who is in the cgroup now. Who is gone gets none.
func (c *container) signalAll(sig unix.Signal) error {
	pids, err := cgroup.Processes(c.note.Tracking)
	if err != nil {
		return fmt.Errorf("signal container %s: %w", c.id, err)
	}
	for _, pid := range pids {
		if killErr := unix.Kill(pid, sig); killErr != nil && !errors.Is(killErr, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("signal process %d of container %s: %w", pid, c.id, killErr))
		}
	}
	return err
}

// kill ends the first process, or all, frozen ones too. A cgroup may be missing in
// a hierarchy that the command does not use.
func (c *container) kill(all bool) error {
	var err error
	if c.pidfd != nil {
		err = pidfd.Signal(int(c.pidfd.Fd()), unix.SIGKILL)
	}
	err = errors.Join(err, c.paths.Thaw())
	for _, dir := range []string{c.paths["freezer"], c.paths[""]} {
		if all && dir != "" {
			err = errors.Join(err, cgroup.Kill(dir))
		}
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", c.id, err)
	}
	return nil
}

func (c *container) freeze(ctx context.Context, frozen bool) error {
	verb := "resume"
	if frozen {
		verb = "pause"
	}
	if c.ended() {
		return c.stopped()
	}
	if err := c.run(ctx, verb, c.id); err != nil {
		return fmt.Errorf("%s container %s: %w", verb, c.id, err)
	}
	return nil
}

// update changes everything or nothing, whatever the command does of its own: it
// begins with the OOM score, whose refusal leaves nothing to take back, and puts
// back what a command that fails has left.
func (c *container) update(ctx context.Context, r runtime.UpdateRequest) (err error) {
	if c.ended() {
		return c.stopped()
	}
	var undone undo.Stack
	defer func() { err = errors.Join(err, undone.Run(ctx)) }()
	if r.OOMScoreAdj != nil {
		before, err := swapOOMScoreAdj(c, *r.OOMScoreAdj)
		if err != nil {
			return fmt.Errorf("update container %s: set oom_score_adj to %d: %w", c.id, *r.OOMScoreAdj, err)
		}
		undone.Push(func(context.Context) error { _, err := swapOOMScoreAdj(c, before); return err })
	}
	if r.Resources != nil {
		saved, err := resources.Save(c.paths, r.Resources.Unified)
		if err != nil {
			return err
		}
		undone.Push(func(context.Context) error { return saved.Restore() })
		if err := limit(ctx, c, r.Resources); err != nil {
			return fmt.Errorf("update container %s: %w", c.id, err)
		}
	}
	undone.Discard()
	return nil
}

// limit has the command set limits. That memory is not taken which is in use is
// seen to here: not each command looks.
func limit(ctx context.Context, c *container, r *specs.LinuxResources) error {
	if err := resources.LowerMemory(c.paths, r.Memory); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := c.path("resources.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return c.run(ctx, "update", "--resources", path, c.id)
}

func swapOOMScoreAdj(c *container, adj int) (before int, err error) {
	before, err = resources.SwapOOMScoreAdj(c.note.PID, adj)
	// The process was ours when the write was done, or it hit nobody: a pid is not
	// given again before it is reaped.
	if c.ended() {
		return 0, c.stopped()
	}
	return before, err
}

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/program"
)

// endLimit bounds the end of an exec that has failed.
const endLimit = 10 * time.Second

// exec starts one more process, in a sub-cgroup of its own so that Kill reaches
// all that it starts and nothing else.
func (c *container) exec(ctx context.Context, execID string, p *specs.Process, io runtime.ProcessIO) (runtime.ExecProcess, error) {
	if c.ended() {
		return runtime.ExecProcess{}, c.stopped()
	}
	execs := c.execs()
	group, err := execs.Make(execID)
	if err != nil {
		return runtime.ExecProcess{}, fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	process, err := c.execIn(ctx, group, execID, p, io)
	if err != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		_ = c.sweep(limited, execID) // what went wrong first is the error
		err = program.Blame(err, fmt.Sprintf("/proc/%d/root", c.note.PID), nil, p)
		return runtime.ExecProcess{}, fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	return runtime.ExecProcess{
		Process: process,
		Kill: func() error {
			return errors.Join(pidfd.Signal(int(process.PIDFD.Fd()), unix.SIGKILL), cgroup.Kill(group))
		},
		Release: func() error { return execs.Release(group) },
	}, nil
}

// endExec ends an exec whose command may still be about to make it.
func (c *container) endExec(ctx context.Context, execID string) error {
	held, err := lock(ctx, c.path(lockName), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer held.Close()
	return c.sweep(ctx, execID)
}

// sweep ends what the command of an exec has made, wherever it was stopped.
func (c *container) sweep(ctx context.Context, execID string) error {
	if pid, err := pidFrom(c.path(pidPrefix + execID)); err == nil {
		_ = os.Remove(c.path(pidPrefix + execID)) // or it goes with the container
		all, err := cgroup.Processes(c.note.Tracking)
		if err == nil && slices.Contains(all, pid) { // it is not another's by now
			err = gather(filepath.Join(c.note.Tracking, cgroup.SubName(execID)), pid)
		}
		if err != nil {
			return err
		}
	}
	return c.execs().End(ctx, execID)
}

func (c *container) execIn(ctx context.Context, group, execID string, p *specs.Process, io runtime.ProcessIO) (runtime.Process, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return runtime.Process{}, err
	}
	path := c.path(filepath.Base(group) + ".json")
	defer func() { _ = os.Remove(path) }() // or it goes with the container
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return runtime.Process{}, err
	}
	args := []string{"--detach", "--process", path}
	if format := c.subFormat(ctx); format != "" {
		args = append(args, "--cgroup", fmt.Sprintf(format, filepath.Base(group)))
	}
	return c.begin(ctx, io, "exec", execID, func(pid int) error { return gather(group, pid) }, args...)
}

// oomScoreAdj is what a process has now.
func oomScoreAdj(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		return "0" // it has ended
	}
	return strings.TrimSpace(string(data))
}

// helpLimit bounds the wait for a command's help.
const helpLimit = 5 * time.Second

// subFormat tells how the command is asked to put an exec into a sub-cgroup that
// is there: only in v2 all that can do it agree on that.
func (c *container) subFormat(ctx context.Context) string {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), helpLimit)
		defer cancel()
		help, _ := exec.CommandContext(ctx, c.note.Command.Path, "exec", "--help").CombinedOutput() // none: none
		switch text := string(help); {
		case !strings.Contains(text, "--cgroup"):
		case c.paths["freezer"] == "":
			c.sub = "%s"
		case strings.Contains(text, "[<controller>:]"):
			c.sub = "freezer:%s"
		}
	})
	return c.sub
}

// gather puts a process, and what it has started, into the sub-cgroup, where the
// command has not done so. What lost its parent before is missed.
func gather(group string, pid int) error {
	inside, err := cgroup.Processes(group)
	if err != nil || slices.Contains(inside, pid) {
		return err
	}
	// After a round all children of who has joined are inside, or are found.
	family := map[int]bool{}
	for joining := []int{pid}; len(joining) > 0; {
		for _, p := range joining {
			family[p] = true
			if err := cgroup.Join(group, p); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("cgroup of exec: %w", err)
			}
		}
		if joining, err = outside(group, family); err != nil {
			return fmt.Errorf("cgroup of exec: %w", err)
		}
	}
	return nil
}

// outside returns the children of a family that have been left in the container's
// own cgroup.
func outside(group string, family map[int]bool) ([]int, error) {
	all, err := cgroup.Processes(filepath.Dir(group))
	if err != nil {
		return nil, err
	}
	inside, err := cgroup.Processes(group)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p int) bool {
		s, err := pidfd.Read(p)
		return err != nil || family[p] || slices.Contains(inside, p) || !family[s.Parent]
	}), nil
}

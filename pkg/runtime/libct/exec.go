package libct

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"syscall"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
)

// Exec starts one more process in the container, in a sub-cgroup of its own so
// that Kill reaches all that it starts and nothing else. It returns once the
// program is being executed. errs.NoProgram where the program is not there,
// errs.NoExecutable where it cannot be executed, in words ("executable file not found
// in $PATH"), errs.Invalid where its working directory is missing, errs.Conflict where
// the container is paused or has stopped.
//
// The process is made by the helper in exec.c, at a third of what libcontainer
// needs, because no Go runtime is started in between. What the helper does not
// know (see execNeedsLibcontainer) goes through libcontainer.
func (e *Engine) Exec(ctx context.Context, id, execID string, p *specs.Process, stdio runtime.ProcessIO) (runtime.ExecProcess, error) {
	c, err := e.get(id)
	if err != nil {
		return runtime.ExecProcess{}, err
	}
	if err := c.mayExec(ctx, p, stdio); err != nil {
		return runtime.ExecProcess{}, err
	}
	p, err = e.limits.Process(p)
	if err != nil {
		return runtime.ExecProcess{}, err
	}
	group, err := c.makeExecGroup(execID)
	if err != nil {
		return runtime.ExecProcess{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	var process runtime.Process
	if c.execNeedsLibcontainer(p) {
		process, err = c.execByLibcontainer(ctx, group, p, stdio)
	} else {
		process, err = e.execByHelper(ctx, c, group, p, stdio)
	}
	if err != nil {
		_ = c.releaseExecGroup(group)
		return runtime.ExecProcess{}, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return runtime.ExecProcess{
		Process: process,
		Kill:    func() error { return cgroup.Kill(group.path) },
		Release: func() error { return c.releaseExecGroup(group) },
	}, nil
}

func (c *container) mayExec(ctx context.Context, p *specs.Process, stdio runtime.ProcessIO) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p == nil || len(p.Args) == 0 || p.Args[0] == "" {
		return fmt.Errorf("exec without a program: %w", errs.Invalid)
	}
	if p.Terminal != (stdio.Console != nil) {
		return fmt.Errorf("terminal %t, console socket %t: %w", p.Terminal, stdio.Console != nil, errs.Invalid)
	}
	if c.pidfd == nil {
		return c.stopped()
	}
	if frozen, err := c.frozen(); err != nil || frozen {
		return errors.Join(err, fmt.Errorf("container %s is paused: %w", c.id, errs.Conflict))
	}
	return nil
}

// execByHelper runs the helper in the container's PID namespace and waits until
// it has executed the program, or says why not.
func (e *Engine) execByHelper(ctx context.Context, c *container, group execGroup, p *specs.Process, stdio runtime.ProcessIO) (runtime.Process, error) {
	r, err := c.execRequest(group, p, stdio)
	if err != nil {
		return runtime.Process{}, err
	}
	request, err := r.file()
	if err != nil {
		return runtime.Process{}, err
	}
	defer request.Close()
	reply, replyEnd, err := os.Pipe()
	if err != nil {
		return runtime.Process{}, err
	}
	defer reply.Close()
	defer replyEnd.Close()
	process, err := e.spawnExec(c, group, request, replyEnd, stdio)
	if err != nil {
		return runtime.Process{}, err
	}
	_ = replyEnd.Close() // so that reply ends with the helper's
	cancel := context.AfterFunc(ctx, func() { _ = cgroup.Kill(group.path) })
	defer cancel()
	// The end of the file without a word is what executing the program does.
	text, err := io.ReadAll(io.LimitReader(reply, 4096))
	if err == nil && len(text) > 0 {
		err = helperError(string(text))
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = cgroup.Kill(group.path)
		_ = pidfd.Signal(int(process.PIDFD.Fd()), unix.SIGKILL)
		_ = process.PIDFD.Close()
		pidfd.Wait(process.PID)
		return runtime.Process{}, err
	}
	return process, nil
}

func (e *Engine) spawnExec(c *container, group execGroup, request, reply *os.File, stdio runtime.ProcessIO) (runtime.Process, error) {
	files, closeNull, err := orNull(stdio)
	if err != nil {
		return runtime.Process{}, err
	}
	defer closeNull()
	more := []*os.File{c.pidfd}
	if stdio.Console != nil {
		more = append(more, stdio.Console)
	}
	pidfd := -1
	sys := &syscall.SysProcAttr{PidFD: &pidfd}
	if group.unified {
		dir, err := os.OpenFile(group.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return runtime.Process{}, err
		}
		defer dir.Close()
		sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd())
	}
	var pid int
	err = e.inPIDNamespace(c, func() (err error) {
		pid, err = e.spawn(execHelper, files, request, reply, more, sys)
		return err
	})
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOMEM) && c.ended() {
		return runtime.Process{}, c.stopped()
	}
	if err != nil {
		return runtime.Process{}, fmt.Errorf("start helper: %w", err)
	}
	return runtime.Process{PID: pid, PIDFD: os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

// inPIDNamespace calls f on a thread whose children are born in the container's
// PID namespace: it spares the helper a second fork.
func (e *Engine) inPIDNamespace(c *container, f func() error) error {
	if !c.config.Namespaces.Contains(configs.NEWPID) {
		return f()
	}
	goruntime.LockOSThread()
	if err := unix.Setns(int(c.pidfd.Fd()), unix.CLONE_NEWPID); err != nil {
		goruntime.UnlockOSThread()
		return os.NewSyscallError("setns", err)
	}
	err := f()
	if back := unix.Setns(int(e.pidNS.Fd()), unix.CLONE_NEWPID); back != nil {
		// Never unlocked, the thread ends with this goroutine and does no harm.
		return errors.Join(err, os.NewSyscallError("setns", back))
	}
	goruntime.UnlockOSThread()
	return err
}

// ended reports whether the first process has ended.
func (c *container) ended() bool {
	over, err := pidfd.Over(int(c.pidfd.Fd()), 0)
	return err == nil && over
}

// orNull returns the three files, /dev/null in place of those that are nil.
func orNull(stdio runtime.ProcessIO) (files [3]*os.File, done func(), err error) {
	files = [3]*os.File{stdio.Stdin, stdio.Stdout, stdio.Stderr}
	if files[0] != nil && files[1] != nil && files[2] != nil {
		return files, func() {}, nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return files, nil, err
	}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	return files, func() { _ = null.Close() }, nil
}

package oci

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
)

// begin runs a verb that makes a process of that name, and calls made before
// anybody may have reaped that. Where it fails, or this worker is killed, a process
// that has been made is left to who finds its pid in the file of that name.
func (c *container) begin(ctx context.Context, io runtime.ProcessIO, verb, name string, made func(pid int) error, args ...string) (runtime.Process, error) {
	pidFile := c.path(pidPrefix + name)
	args = append(args, "--pid-file", pidFile)
	pass := func(bool) error { return nil }
	if io.Console != nil {
		socket, passMaster, err := console(c.sockets, io)
		if err != nil {
			return runtime.Process{}, err
		}
		args, pass = append(args, "--console-socket", socket), passMaster
	}
	x, err := c.command(verb, append(args, c.id)...)
	if err != nil {
		return runtime.Process{}, err
	}
	env := environment()
	if verb == "exec" { // crun lets it inherit what we have, to be spared by the OOM killer
		env = append(env, adjVariable+"="+oomScoreAdj(c.note.PID))
	}
	release, err := adopt(ctx, c.path(lockName), [3]*os.File{io.Stdin, io.Stdout, io.Stderr}, x.args, env)
	if passErr := pass(err == nil); err == nil && passErr != nil {
		release()
		err = passErr
	}
	if err := x.done(ctx, err); err != nil {
		return runtime.Process{}, err
	}
	p, err := c.take(pidFile, made)
	if err != nil {
		release()
		return runtime.Process{}, err
	}
	p.Settle = release
	_ = os.Remove(pidFile) // or it goes with the container
	return p, nil
}

// take opens the process that a command has made.
func (c *container) take(pidFile string, made func(pid int) error) (runtime.Process, error) {
	pid, err := pidFrom(pidFile)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("pid that it wrote: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return runtime.Process{}, os.NewSyscallError("pidfd_open", err)
	}
	p := runtime.Process{PID: pid, PIDFD: os.NewFile(uintptr(fd), "pidfd")}
	if err := made(pid); err != nil {
		_ = p.PIDFD.Close() // nothing was written to it
		return runtime.Process{}, err
	}
	return p, nil
}

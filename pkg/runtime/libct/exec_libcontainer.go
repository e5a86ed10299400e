package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/program"
	"github.com/berth-run/berth/pkg/runtime/libct/seccomp"
)

// execNeedsLibcontainer reports whether the process asks for what the helper
// does not know: schedulers, I/O priorities, CPU affinity, personalities,
// memory policies, Intel RDT, and seccomp agents.
func (c *container) execNeedsLibcontainer(p *specs.Process) bool {
	return p.Scheduler != nil || p.IOPriority != nil || p.ExecCPUAffinity != nil ||
		c.config.Scheduler != nil || c.config.IOPriority != nil || c.config.ExecCPUAffinity != nil ||
		c.config.Personality != nil || c.config.MemoryPolicy != nil || c.config.IntelRdt != nil ||
		seccomp.Asks(c.config.Seccomp)
}

func (c *container) execByLibcontainer(ctx context.Context, group execGroup, p *specs.Process, stdio runtime.ProcessIO) (runtime.Process, error) {
	process, err := setnsProcess(p, stdio)
	if err != nil {
		return runtime.Process{}, err
	}
	filter, err := c.seccomp.Given(&c.config)
	if err != nil {
		return runtime.Process{}, err
	}
	if filter != nil {
		defer filter.Close()
		process.ExtraFiles = []*os.File{filter}
	}
	v2 := len(c.paths) == 1 && group.unified
	if v2 {
		process.SubCgroupPaths = map[string]string{"": filepath.Base(group.path)}
	}
	ct, err := c.load()
	if err != nil {
		return runtime.Process{}, err
	}
	if err := startExec(ctx, ct, process); err != nil {
		return runtime.Process{}, program.Blame(seccomp.Blame(err, c.config.Seccomp), fmt.Sprintf("/proc/%d/root", c.pid), nil, p)
	}
	pid, err := process.Pid()
	if err != nil {
		return runtime.Process{}, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return runtime.Process{}, os.NewSyscallError("pidfd_open", err)
	}
	if !v2 {
		// libcontainer cannot put it in a sub-cgroup of one hierarchy alone.
		// What it forks before this escapes Kill; it has ended if this fails.
		_ = cgroup.Join(group.path, pid)
	}
	return runtime.Process{PID: pid, PIDFD: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// startExec starts a process, and kills it where ctx ends first: a seccomp agent may
// keep it from executing its program. The process tells its pidfd before it loads the
// filter.
func startExec(ctx context.Context, ct *libcontainer.Container, p *libcontainer.Process) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "pidfd"), os.NewFile(uintptr(pair[1]), "pidfd")
	defer ours.Close()
	p.PidfdSocket = theirs
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		if fd, err := pidfd.Receive(ours); err == nil { // else it has not come so far
			_ = pidfd.Signal(int(fd.Fd()), unix.SIGKILL)
			_ = fd.Close()
		}
	})
	err = ct.Start(p)
	_ = theirs.Close()
	if stop() {
		return err
	}
	<-killed
	return errors.Join(endedBy(ctx, p, err), err)
}

// setnsProcess is libcontainer's form of an exec: what initProcess takes from
// the container's configuration must be said here.
func setnsProcess(p *specs.Process, stdio runtime.ProcessIO) (*libcontainer.Process, error) {
	out, err := initProcess(p, stdio)
	if err != nil {
		return nil, err
	}
	out.Init = false
	out.Label = p.SelinuxLabel
	out.NoNewPrivileges = &p.NoNewPrivileges
	out.Scheduler = p.Scheduler
	out.IOPriority = p.IOPriority
	if c := p.Capabilities; c != nil {
		out.Capabilities = &configs.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Permitted: c.Permitted,
			Inheritable: c.Inheritable, Ambient: c.Ambient,
		}
	}
	if out.CPUAffinity, err = configs.ConvertCPUAffinity(p.ExecCPUAffinity); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	out.Rlimits, err = configRlimits(p.Rlimits)
	return out, err
}

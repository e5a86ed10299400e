package libct

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"

	// Lets cgroup managers set device rules.
	_ "github.com/opencontainers/cgroups/devices"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/limits"
	"github.com/berth-run/berth/pkg/runtime/libct/seccomp"
)

// Create makes the container's cgroup, namespaces and mounts, and its first
// process, which waits for Start before it executes its program. errs.Exists
// where the id is taken. A failed call leaves nothing.
func (e *Engine) Create(ctx context.Context, id string, spec *specs.Spec, io runtime.ProcessIO) (_ runtime.Process, err error) {
	if err := ctx.Err(); err != nil {
		return runtime.Process{}, err
	}
	if spec == nil || spec.Process == nil || spec.Linux == nil || len(spec.Process.Args) == 0 {
		return runtime.Process{}, fmt.Errorf("container %s: spec without process, arguments or linux: %w", id, errs.Invalid)
	}
	e.v1.Warm()
	process, err := e.limits.Process(spec.Process)
	if err != nil {
		return runtime.Process{}, err
	}
	config, err := e.config(id, spec, process)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("container %s: %w: %w", id, err, errs.Invalid)
	}
	bundle, err := e.hooks.Make(id, spec, config)
	if err != nil {
		return runtime.Process{}, err
	}
	defer bundle.RemoveOn(&err)
	program, err := e.seccomp.StandIn(config)
	if err != nil {
		return runtime.Process{}, fmt.Errorf("container %s: %w", id, err)
	}
	defer program.Close()
	ct, made, err := e.enter(ctx, id, config)
	if err != nil {
		return runtime.Process{}, err
	}
	defer made()
	p, err := initProcess(process, io)
	if err == nil {
		if program != nil {
			p.ExtraFiles = []*os.File{program}
		}
		var env *os.File
		if env, err = e.carryEnv(p, spec); err == nil {
			err = startInit(ctx, ct, p, config)
		}
		defer env.Close()
	}
	if err != nil {
		made()
		_ = ct.Destroy() // best effort, as is the next: the error is what went wrong first
		_ = e.forgetNote(id)
		return runtime.Process{}, fmt.Errorf("container %s: %w", id, blame(err, spec))
	}
	return e.created(ct, id, ct)
}

// startInit starts the first process, up to the gate. A seccomp agent may keep it from
// getting there.
func startInit(ctx context.Context, ct *libcontainer.Container, p *libcontainer.Process, config *configs.Config) error {
	if !seccomp.Asks(config.Seccomp) {
		return ct.Start(p)
	}
	stop := killWith(ctx, config.Cgroups)
	err := ct.Start(p)
	stop()
	return errors.Join(endedBy(ctx, p, err), seccomp.Blame(err, config.Seccomp))
}

// endedBy returns the error of ctx, and ends a process that has begun, by which
// libcontainer's error is nil: that says nothing of its end.
func endedBy(ctx context.Context, p *libcontainer.Process, err error) error {
	if err == nil && ctx.Err() != nil {
		_ = p.Signal(unix.SIGKILL) // it may have ended
		_, _ = p.Wait()            // nobody asks how
	}
	return ctx.Err()
}

// enter makes a container without a process, and its note before it. made waits for
// its cgroups of v1, which are made meanwhile; it may be called twice.
func (e *Engine) enter(ctx context.Context, id string, config *configs.Config) (ct *libcontainer.Container, made func(), err error) {
	if err := e.note(id, config.Cgroups); err != nil {
		return nil, nil, fmt.Errorf("container %s: %w", id, err)
	}
	made = e.v1.Make(config.Cgroups.Path) // empty with systemd
	ct, err = libcontainer.Create(e.opts.Root, id, config)
	if err == nil {
		return ct, made, nil
	}
	made()
	if errors.Is(err, libcontainer.ErrExist) {
		return nil, nil, fmt.Errorf("container %s: %w", id, errs.Exists)
	}
	return nil, nil, errors.Join(fmt.Errorf("container %s: %w", id, err), e.removeHalf(context.WithoutCancel(ctx), id))
}

// created opens the pidfds of a container that has just been made: ours, and
// the caller's. fresh is ct where that is to be used until the start: what has been
// restored must be read again, or libcontainer does not know how to pause it.
func (e *Engine) created(ct *libcontainer.Container, id string, fresh *libcontainer.Container) (runtime.Process, error) {
	c, err := e.newContainer(id, ct)
	if err == nil && c.pidfd == nil {
		err = c.stopped()
	}
	var fd int
	if err == nil {
		fd, err = unix.FcntlInt(c.pidfd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		_ = ct.Signal(unix.SIGKILL) // best effort, as are the next
		_ = ct.Destroy()
		_ = e.forgetNote(id)
		return runtime.Process{}, fmt.Errorf("container %s: %w", id, err)
	}
	c.fresh = fresh
	e.mu.Lock()
	e.containers[id] = c
	e.mu.Unlock()
	return runtime.Process{PID: c.pid, PIDFD: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// config turns the spec, with process in place of its own, into libcontainer's
// form, without what is placed from outside.
func (e *Engine) config(id string, spec *specs.Spec, process *specs.Process) (*configs.Config, error) {
	config, err := e.whole(id, spec, process)
	if err != nil {
		return nil, err
	}
	e.takeOutside(config)
	return config, nil
}

// whole is config with everything left to libcontainer.
func (e *Engine) whole(id string, spec *specs.Spec, process *specs.Process) (*configs.Config, error) {
	s, linux := *spec, *spec.Linux
	s.Process, s.Linux = process, &linux
	if e.opts.SystemdCgroup {
		tellSystemd(&s)
	}
	userNS := detachUserNamespace(&linux)
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       id,
		UseSystemdCgroup: e.opts.SystemdCgroup,
		Spec:             &s,
	})
	if err != nil {
		return nil, err
	}
	if userNS != "" {
		attachUserNamespace(config, userNS)
	}
	// Rlimits are the one part of the process that specconv leaves out.
	config.Rlimits, err = configRlimits(process.Rlimits)
	return config, err
}

// tellSystemd says what libcontainer would leave to systemd's defaults, which comes
// to count when systemd writes a cgroup's settings, if not at once: processes
// without a limit, where it is 15% of the machine's, and no swap.
func tellSystemd(s *specs.Spec) {
	var r specs.LinuxResources
	if s.Linux.Resources != nil {
		r = *s.Linux.Resources
	}
	s.Linux.Resources = &r
	if r.Pids == nil {
		unlimited := int64(-1)
		r.Pids = &specs.LinuxPids{Limit: &unlimited}
	}
	if m := r.Memory; m != nil && m.Limit != nil && m.Swap != nil && *m.Limit > 0 && *m.Swap == *m.Limit {
		s.Annotations = maps.Clone(s.Annotations)
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations["org.systemd.property.MemorySwapMax"] = "uint64 0"
	}
}

// detachUserNamespace takes the path of the user namespace out of the spec and
// returns it, where the spec also tells its mappings. libcontainer would start
// a process just to read from the namespace what the spec says already.
func detachUserNamespace(linux *specs.Linux) string {
	if len(linux.UIDMappings) == 0 || len(linux.GIDMappings) == 0 {
		return ""
	}
	for i, ns := range linux.Namespaces {
		if ns.Type == specs.UserNamespace && ns.Path != "" {
			linux.Namespaces = append([]specs.LinuxNamespace(nil), linux.Namespaces...)
			linux.Namespaces[i].Path = ""
			return ns.Path
		}
	}
	return ""
}

// attachUserNamespace puts the path back, and lets idmapped mounts with the
// pod's mappings use that namespace rather than one made for each of them.
func attachUserNamespace(config *configs.Config, path string) {
	config.Namespaces.Remove(configs.NEWUSER)
	config.Namespaces.Add(configs.NEWUSER, path)
	for _, m := range config.Mounts {
		if id := m.IDMapping; id != nil && sameMappings(id.UIDMappings, config.UIDMappings) && sameMappings(id.GIDMappings, config.GIDMappings) {
			m.IDMapping = &configs.MountIDMapping{Recursive: id.Recursive, UserNSPath: path}
		}
	}
}

func sameMappings(a, b []configs.IDMap) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func configRlimits(asked []specs.POSIXRlimit) ([]configs.Rlimit, error) {
	var out []configs.Rlimit
	for _, l := range asked {
		n, err := limits.Rlimit(l.Type)
		if err != nil {
			return nil, err
		}
		out = append(out, configs.Rlimit{Type: n, Hard: l.Hard, Soft: l.Soft})
	}
	return out, nil
}

// initProcess is libcontainer's form of the first process. Capabilities, labels
// and limits are in the configuration already.
func initProcess(p *specs.Process, io runtime.ProcessIO) (*libcontainer.Process, error) {
	out := &libcontainer.Process{
		Args: p.Args,
		Env:  p.Env,
		UID:  int(p.User.UID),
		GID:  int(p.User.GID),
		Cwd:  p.Cwd,
		Init: true,
		// Else libcontainer's C half writes dozens of debug lines, which are
		// parsed here and thrown away.
		LogLevel: strconv.Itoa(int(logrus.ErrorLevel)),

		AppArmorProfile: p.ApparmorProfile,
	}
	for _, g := range p.User.AdditionalGids {
		out.AdditionalGroups = append(out.AdditionalGroups, int(g))
	}
	if p.Terminal != (io.Console != nil) {
		return nil, fmt.Errorf("terminal %t, console socket %t: %w", p.Terminal, io.Console != nil, errs.Invalid)
	}
	if p.Terminal {
		out.ConsoleSocket = io.Console
		out.ConsoleWidth, out.ConsoleHeight = io.Width, io.Height
		return out, nil
	}
	// A nil *os.File in an interface would not be nil.
	if io.Stdin != nil {
		out.Stdin = io.Stdin
	}
	if io.Stdout != nil {
		out.Stdout = io.Stdout
	}
	if io.Stderr != nil {
		out.Stderr = io.Stderr
	}
	return out, nil
}

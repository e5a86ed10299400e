// Package libct makes containers with libcontainer, in process. It is the real
// runtime.Engine and the only package that imports libcontainer and cgroups.
//
// It owns the path from an OCI spec to a process: namespaces, mounts, cgroups,
// capabilities, seccomp and the pidfd that the supervisor watches. It refuses
// to know of logs, clients, exit records and CRI.
//
// The binary that links it is executed again for each of its helpers, which
// take over before main (Init) or, for the fast ones, before the Go runtime
// starts (helper.c):
//
//	init            libcontainer's own, makes a container's first process
//	berth:exec      one more process in a container (exec.c)
//	berth:pod       makes and holds a pod's namespaces while the engine pins
//	                them; its child may stay as the pod's PID 1 (pod.c)
//
// Every process that the engine returns is a child of the caller, who alone
// reaps it; what the engine starts for itself it reaps itself. A pod's PID 1 is
// reaped by DeletePod.
//
// On disk: one directory per container under Options.Root (tmpfs), with
// libcontainer's state.json, .cgroups with a note for each of where its cgroup
// is, and .seccomp with the compiled profiles. With Options.Bundles, which package
// hooks fills, it is all that a new worker needs.
//
// Locks: Engine.mu guards the map of containers, container.mu what is cached
// for one of them. Neither is held while a process is made. There are no
// long-lived goroutines.
package libct

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"

	"github.com/opencontainers/runc/libcontainer/exeseal"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/hooks"
	"github.com/berth-run/berth/pkg/runtime/libct/limits"
	"github.com/berth-run/berth/pkg/runtime/libct/seccomp"
)

// Options says where and how the engine works.
type Options struct {
	// Root is a directory on tmpfs for the state of containers.
	Root string
	// Bundles is a directory for what hooks read. Those of user namespaces must be
	// able to pass what lies above it. Empty: one in Root.
	Bundles string
	// SystemdCgroup makes cgroups through systemd instead of the file system.
	SystemdCgroup bool
}

// programsDir and bundlesDir lie among the containers' directories; no id begins
// with a dot.
const (
	programsDir = ".seccomp"
	bundlesDir  = ".bundles"
)

// Engine implements runtime.Engine. All methods may be called concurrently;
// calls that name one container are to be put in order by the caller, except
// Exec, of which any number may run at once.
type Engine struct {
	opts   Options
	limits limits.Limits
	exe    *os.File // what helpers are executed from; nobody can write to it
	pidNS  *os.File // our own PID namespace, to come back to
	driver cgroup.Driver
	v1     *cgroup.V1
	kills  cgroup.Kills
	inside bool // for tests: all mounts are libcontainer's

	seccomp *seccomp.Programs
	hooks   *hooks.Store

	mu         sync.Mutex
	containers map[string]*container
}

var _ runtime.Engine = (*Engine)(nil)

// New opens an engine on the state in o.Root, which it makes if needed.
func New(o Options) (*Engine, error) {
	if o.Root == "" {
		return nil, fmt.Errorf("engine without a root: %w", errs.Invalid)
	}
	if err := os.MkdirAll(o.Root, 0o711); err != nil {
		return nil, err
	}
	// libcontainer logs warnings about what the engine has decided on purpose;
	// errors come back as errors.
	logrus.SetLevel(logrus.ErrorLevel)
	// libcontainer hands the variable to its init, which has one thread to use and
	// else looks for the CPU limits of its cgroup first. Here it means nothing.
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		return nil, err
	}
	goruntime.SetDefaultGOMAXPROCS()
	// No process of a container may read this one's memory or files.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl(PR_SET_DUMPABLE)", err)
	}
	exe, err := sealedSelf()
	if err != nil {
		return nil, err
	}
	pidNS, err := os.Open("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	notes := filepath.Join(o.Root, notesDir)
	if err := os.MkdirAll(notes, 0o700); err != nil {
		return nil, err
	}
	if err := statefile.Sweep(notes); err != nil {
		return nil, err
	}
	programs, err := seccomp.Open(filepath.Join(o.Root, programsDir))
	if err != nil {
		return nil, err
	}
	bundles, err := hooks.Open(cmp.Or(o.Bundles, filepath.Join(o.Root, bundlesDir)))
	if err != nil {
		return nil, err
	}
	v1, err := cgroup.OpenV1()
	if err != nil {
		return nil, err
	}
	return &Engine{
		opts:       o,
		driver:     cgroup.Driver{Systemd: o.SystemdCgroup},
		v1:         v1,
		seccomp:    programs,
		hooks:      bundles,
		limits:     limits.Probe(),
		exe:        exe,
		pidNS:      pidNS,
		containers: map[string]*container{},
	}, nil
}

// Limits names what this process may not do for containers.
func (e *Engine) Limits() []string { return e.limits.Words() }

// sealedSelf opens this program in a form that no container can overwrite
// through /proc/PID/exe (CVE-2019-5736).
func sealedSelf() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	if exeseal.IsCloned(self) {
		return self, nil
	}
	defer self.Close()
	info, err := self.Stat()
	if err != nil {
		return nil, err
	}
	return exeseal.CloneBinary(self, info.Size(), "berth", os.TempDir())
}

// Seal makes sure that the program runs from a sealed copy of itself in memory,
// executing it once more if need be. Call it first in main, before anything is
// open: then libcontainer needs no copy at each start. It returns only where
// nothing was to be done, or on failure, after which all works, but slower.
func Seal() error {
	if exeseal.IsSelfExeCloned() {
		return setName()
	}
	exe, err := sealedSelf()
	if err != nil {
		return err
	}
	defer exe.Close()
	path := fmt.Sprintf("/proc/self/fd/%d", exe.Fd())
	return fmt.Errorf("execute %s: %w", path, unix.Exec(path, os.Args, os.Environ()))
}

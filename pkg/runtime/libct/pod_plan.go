package libct

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// podPlan is what to make for a pod.
type podPlan struct {
	flags    uint32
	hostname string
	sysctls  []sysctl
}

type sysctl struct{ path, value string }

func planPod(r runtime.PodRequest) (*podPlan, error) {
	p := &podPlan{hostname: r.Hostname}
	for _, ns := range r.Namespaces {
		known, ok := podNamespaces[ns.Type]
		if !ok || p.flags&known.flag != 0 || !filepath.IsAbs(ns.Path) {
			return nil, fmt.Errorf("namespace %q at %q: %w", ns.Type, ns.Path, errs.Invalid)
		}
		p.flags |= known.flag
	}
	if p.flags&unix.CLONE_NEWUSER != 0 && (len(r.UIDMappings) == 0 || len(r.GIDMappings) == 0) {
		return nil, fmt.Errorf("user namespace without mappings: %w", errs.Invalid)
	}
	if p.flags&unix.CLONE_NEWUTS == 0 {
		p.hostname = ""
	}
	for _, key := range slices.Sorted(maps.Keys(r.Sysctls)) {
		path, err := sysctlPath(key, p.flags)
		if err != nil {
			return nil, err
		}
		p.sysctls = append(p.sysctls, sysctl{path, r.Sysctls[key]})
	}
	return p, nil
}

// fitsThread reports whether a thread of this process can make it all, which
// spares half of the time: with a user namespace, or a PID 1, it takes a process.
func (p *podPlan) fitsThread() bool {
	return p.flags&^(unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS) == 0
}

// makeHere makes the namespaces on this thread, to be spoilt, and pins them.
func (p *podPlan) makeHere(namespaces []runtime.PodNamespace) error {
	if err := unix.Unshare(int(p.flags)); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if p.hostname != "" {
		if err := unix.Sethostname([]byte(p.hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", p.hostname, err)
		}
	}
	for _, s := range p.sysctls {
		if err := s.set(); err != nil {
			return err
		}
	}
	for _, ns := range namespaces {
		if err := pin("/proc/thread-self/ns/"+podNamespaces[ns.Type].file, ns.Path); err != nil {
			return err
		}
	}
	return nil
}

// set writes the value for this thread's namespaces. Its errors are the helper's.
func (s sysctl) set() error {
	fd, err := unix.Open(s.path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(s.value))
		_ = unix.Close(fd) // the kernel has taken it
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return helperError(fmt.Sprintf("%d set %s", errno, s.path))
	}
	return err
}

// request writes the plan down in the order in which pod.c reads it.
func (p *podPlan) request() *request {
	out := &request{}
	out.number(p.flags)
	out.string(p.hostname)
	out.number(uint32(len(p.sysctls)))
	for _, s := range p.sysctls {
		out.string(s.path)
		out.string(s.value)
	}
	return out
}

// sysctlPath refuses keys that are not those of a namespace being made: they
// would change the host.
func sysctlPath(key string, flags uint32) (string, error) {
	need := uint32(0)
	switch {
	case strings.HasPrefix(key, "net."):
		need = unix.CLONE_NEWNET
	case strings.HasPrefix(key, "kernel.shm"), strings.HasPrefix(key, "kernel.msg"), key == "kernel.sem", strings.HasPrefix(key, "fs.mqueue."):
		need = unix.CLONE_NEWIPC
	case key == "kernel.domainname":
		need = unix.CLONE_NEWUTS
	}
	if need == 0 || flags&need == 0 {
		return "", fmt.Errorf("sysctl %q is not of a namespace of the pod: %w", key, errs.Invalid)
	}
	// A slash within a key stands for a dot of an interface's name.
	path := strings.Map(func(c rune) rune {
		switch c {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return c
	}, key)
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("sysctl %q: %w", key, errs.Invalid)
		}
	}
	return "/proc/sys/" + path, nil
}

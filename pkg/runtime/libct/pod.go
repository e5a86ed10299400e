package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/libct/thread"
)

// podNamespace is how one type is made and where /proc shows it.
type podNamespace struct {
	flag uint32
	file string
}

var podNamespaces = map[specs.LinuxNamespaceType]podNamespace{
	specs.NetworkNamespace: {unix.CLONE_NEWNET, "net"},
	specs.IPCNamespace:     {unix.CLONE_NEWIPC, "ipc"},
	specs.UTSNamespace:     {unix.CLONE_NEWUTS, "uts"},
	specs.UserNamespace:    {unix.CLONE_NEWUSER, "user"},
	specs.CgroupNamespace:  {unix.CLONE_NEWCGROUP, "cgroup"},
	// A process sees the namespace of its children here once it has one.
	specs.PIDNamespace: {unix.CLONE_NEWPID, "pid_for_children"},
}

// CreatePod makes the namespaces that r asks for and pins each at its path,
// taking over what a killed call has left there, and makes the pod's cgroup.
// With a PID namespace it returns the pid of its PID 1: a child of the caller
// that DeletePod ends and reaps. A failed call leaves nothing.
func (e *Engine) CreatePod(ctx context.Context, r runtime.PodRequest) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	e.v1.Warm() // the pod's first container comes next
	var steps undo.Stack
	initPID, err := e.createPod(ctx, r, &steps)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("pod %s: %w", r.ID, err), steps.Run(ctx))
	}
	return initPID, nil
}

func (e *Engine) createPod(ctx context.Context, r runtime.PodRequest, steps *undo.Stack) (int, error) {
	initPID := 0
	steps.Push(func(ctx context.Context) error { return e.DeletePod(ctx, r, initPID) })
	if err := e.driver.MakePod(r.CgroupParent); err != nil {
		return 0, err
	}
	if len(r.Namespaces) == 0 {
		return 0, nil
	}
	plan, err := planPod(r)
	if err != nil {
		return 0, err
	}
	if plan.fitsThread() {
		return 0, thread.Spoil(func() error { return plan.makeHere(r.Namespaces) })
	}
	h, err := e.startPodHelper(plan.request())
	if err != nil {
		return 0, err
	}
	defer h.end()
	cancel := context.AfterFunc(ctx, h.kill)
	defer cancel()
	if initPID, err = h.await(r); err != nil {
		return 0, err
	}
	if initPID != 0 && r.InitCgroup != "" {
		if err := e.driver.JoinInit(r.InitCgroup, initPID); err != nil {
			return 0, err
		}
	}
	for _, ns := range r.Namespaces {
		if err := pin(fmt.Sprintf("/proc/%d/ns/%s", h.pid, podNamespaces[ns.Type].file), ns.Path); err != nil {
			return 0, err
		}
	}
	return initPID, h.release(initPID != 0)
}

// podHelper is a running execution of pod.c.
type runningPodHelper struct {
	pid    int
	socket *os.File
}

func (e *Engine) startPodHelper(r *request) (*runningPodHelper, error) {
	file, err := r.file()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "pod helper"), os.NewFile(uintptr(pair[1]), "pod helper")
	defer theirs.Close()
	files, closeNull, err := orNull(runtime.ProcessIO{})
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	defer closeNull()
	pid, err := e.spawn(podHelper, files, file, theirs, nil, &syscall.SysProcAttr{})
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start helper: %w", err)
	}
	return &runningPodHelper{pid: pid, socket: ours}, nil
}

// await serves the helper until it has made all, and returns the pid of PID 1.
func (h *runningPodHelper) await(r runtime.PodRequest) (int, error) {
	buf := make([]byte, 1024)
	pid, up := 0, false
	for made := false; !made || pid != 0 && !up; {
		n, err := h.socket.Read(buf)
		if err != nil {
			return pid, fmt.Errorf("helper: %w", err)
		}
		switch text := string(buf[:n]); {
		case text == "map":
			if err := h.mapUsers(r); err != nil {
				return pid, err
			}
		case text == "up":
			up = true
		case text == "made":
			made = true
		case strings.HasPrefix(text, "pid "):
			if pid, err = strconv.Atoi(text[len("pid "):]); err != nil {
				return 0, err
			}
		case text == "":
			return pid, errors.New("helper ended early")
		default:
			return pid, helperError(text)
		}
	}
	return pid, nil
}

func (h *runningPodHelper) mapUsers(r runtime.PodRequest) error {
	for file, mappings := range map[string][]specs.LinuxIDMapping{"uid_map": r.UIDMappings, "gid_map": r.GIDMappings} {
		var text strings.Builder
		for _, m := range mappings {
			fmt.Fprintf(&text, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", h.pid, file), []byte(text.String()), 0); err != nil {
			return fmt.Errorf("map users: %w", err)
		}
	}
	_, err := h.socket.Write([]byte("!"))
	return err
}

// kill makes await fail.
func (h *runningPodHelper) kill() { _ = unix.Shutdown(int(h.socket.Fd()), unix.SHUT_RDWR) }

// release lets PID 1 live on alone: from now on it is DeletePod that ends it,
// not the end of the engine. It and the helper each take one message.
func (h *runningPodHelper) release(init bool) error {
	if !init {
		return nil
	}
	for range 2 {
		if _, err := h.socket.Write([]byte("!")); err != nil {
			return fmt.Errorf("release PID 1: %w", err)
		}
	}
	return nil
}

// end lets the helper go, and reaps it.
func (h *runningPodHelper) end() {
	_ = h.socket.Close()
	pidfd.Wait(h.pid)
}

package libct

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/runtime"
)

// pin keeps the namespace that source shows alive by a mount at path. A pin
// that a killed call has left there is replaced.
func pin(source, path string) error {
	if err := unpin(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close() // nothing was written
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("pin namespace at %s: %w", path, err)
	}
	return nil
}

// unpin undoes pin, as often as it was done. It is idempotent.
func unpin(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unpin namespace at %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// DeletePod ends and reaps the pod's PID 1, unpins its namespaces and removes
// its cgroups, with whatever is left in there. It is idempotent, takes no longer
// than half a minute, and works after a restart: then PID 1 is
// another's child, who reaps it. A PID 1 that nobody has noted is found by its
// cgroup.
func (e *Engine) DeletePod(ctx context.Context, r runtime.PodRequest, initPID int) error {
	ctx, cancel := context.WithTimeout(ctx, destroyLimit)
	defer cancel()
	var failed []error
	if initPID != 0 {
		failed = append(failed, endInit(ctx, r, initPID))
	}
	for _, ns := range r.Namespaces {
		failed = append(failed, unpin(ns.Path))
	}
	if r.InitCgroup != "" {
		failed = append(failed, e.driver.RemoveInit(ctx, r.InitCgroup))
	}
	failed = append(failed, e.driver.RemovePod(ctx, r.CgroupParent))
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("delete pod %s: %w", r.ID, err)
	}
	return nil
}

// endInit kills the pod's PID 1, with it all of the PID namespace, and waits
// for its end, which is not before each process of the namespace is reaped.
func endInit(ctx context.Context, r runtime.PodRequest, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // long gone
	}
	defer unix.Close(fd)
	// The number may be another's by now: of ours, either we are the parent,
	// or it is in the namespace that is pinned.
	info := unix.Siginfo{}
	child := unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil
	if !child && !inPinned(r, pid) {
		return nil
	}
	if err := pidfd.Signal(fd, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill PID 1 of the pod: %w", err)
	}
	if err := pidfd.AwaitEnd(ctx, fd); err != nil {
		return fmt.Errorf("PID 1 of the pod does not end: %w", err)
	}
	if child {
		pidfd.Wait(pid)
	}
	return nil
}

// inPinned reports whether the process is in the pod's pinned PID namespace.
func inPinned(r runtime.PodRequest, pid int) bool {
	for _, ns := range r.Namespaces {
		if ns.Type != specs.PIDNamespace {
			continue
		}
		pinned, err := os.Stat(ns.Path)
		if err != nil {
			return false
		}
		own, err := os.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid))
		return err == nil && os.SameFile(pinned, own)
	}
	return false
}

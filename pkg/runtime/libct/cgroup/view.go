package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime/libct/mounts"
)

// ViewAt is where containers see their cgroups.
const ViewAt = "/sys/fs/cgroup"

// View is a container's view of its v1 cgroups: a tmpfs with a bind mount for
// each hierarchy.
type View struct {
	attributes  uint64
	tmpfs       int
	hierarchies map[string]int // by name of the directory
}

// OpenView opens the view of the process, which is in its cgroups already.
func (v *V1) OpenView(pid int, readOnly bool) (_ *View, err error) {
	w := &View{tmpfs: -1, hierarchies: map[string]int{}, attributes: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	tmpfs, err := openTmpfs(w.attributes)
	if err != nil {
		return nil, err
	}
	w.tmpfs = tmpfs
	if readOnly {
		w.attributes |= unix.MOUNT_ATTR_RDONLY
	}
	file, err := cgroups.ParseCgroupFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for _, h := range v.hierarchies {
		if err := w.add(h, file); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *View) add(h cgroups.Mount, file map[string]string) error {
	dir, err := directory(h, file)
	if err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	w.hierarchies[filepath.Base(h.Mountpoint)] = fd
	return w.set(fd)
}

func (w *View) set(mount int) error {
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: w.attributes, Propagation: unix.MS_PRIVATE}))
}

func openTmpfs(attributes uint64) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "source", "tmpfs"), unix.FsconfigSetString(fs, "mode", "0755"), unix.FsconfigCreate(fs)); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attributes))
	if err != nil {
		return -1, os.NewSyscallError("fsmount", err)
	}
	return fd, nil
}

// Place implements mounts.Placement.
func (w *View) Place(root int) error {
	target, err := mounts.Open(root, ViewAt, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := mounts.Move(w.tmpfs, target, ""); err != nil {
		return err
	}
	for name, fd := range w.hierarchies {
		if err := unix.Mkdirat(w.tmpfs, name, 0o755); err != nil {
			return os.NewSyscallError("mkdirat", err)
		}
		if err := mounts.Move(fd, w.tmpfs, name); err != nil {
			return err
		}
		if err := w.alias(name); err != nil {
			return err
		}
	}
	return w.set(w.tmpfs)
}

// alias lets a hierarchy of several controllers be found by each of them.
func (w *View) alias(name string) error {
	if !strings.Contains(name, ",") {
		return nil
	}
	for controller := range strings.SplitSeq(name, ",") {
		if err := unix.Symlinkat(name, w.tmpfs, controller); err != nil && !errors.Is(err, unix.EEXIST) {
			return os.NewSyscallError("symlinkat", err)
		}
	}
	return nil
}

// Close implements mounts.Placement.
func (w *View) Close() {
	if w.tmpfs >= 0 {
		_ = unix.Close(w.tmpfs) // as below: no more than a reference
	}
	for _, fd := range w.hierarchies {
		_ = unix.Close(fd)
	}
}

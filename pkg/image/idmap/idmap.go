// Package idmap shows files to a user namespace with other owners than they have
// on disk, by idmapped mounts (Linux 5.12). It changes no file and keeps nothing.
package idmap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// Mappings are those of a user namespace; empty ones map nothing.
type Mappings struct {
	UIDs []specs.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []specs.LinuxIDMapping `json:"gids,omitempty"`
}

// Empty reports whether there is no user namespace.
func (m Mappings) Empty() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// Clone returns a detached, private mount of what fd has open, with mount
// attributes such as MOUNT_ATTR_RDONLY, as a user namespace of the mappings sees
// it. The caller closes it. The error is of kind Unsupported where the file
// system cannot be mapped.
func Clone(fd int, attributes uint64, m Mappings) (int, error) {
	attr := unix.MountAttr{Attr_set: attributes, Propagation: unix.MS_PRIVATE}
	if !m.Empty() {
		ns, err := namespace(m)
		if err != nil {
			return -1, fmt.Errorf("user namespace: %w", err)
		}
		defer unix.Close(ns)
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(ns)
	}
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, os.NewSyscallError("open_tree", err)
	}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		_ = unix.Close(clone)
		if !m.Empty() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) {
			return -1, fmt.Errorf("the file system has no idmapped mounts (%w): %w", err, errs.Unsupported)
		}
		return -1, os.NewSyscallError("mount_setattr", err)
	}
	return clone, nil
}

// Possible reports whether what is at source, with all that is mounted below it if
// recursive is set, can be mounted with the owners of the user namespace whose path
// is given. Not every file system lets it: devtmpfs does not.
func Possible(namespace, source string, recursive bool) bool {
	ns, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(ns)
	var below uint
	if recursive {
		below = unix.AT_RECURSIVE
	}
	clone, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|below)
	if err != nil {
		return false
	}
	defer unix.Close(clone)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
	return unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH|below, &attr) == nil
}

// Attach puts a detached mount at target.
func Attach(fd int, target string) error {
	return os.NewSyscallError("move_mount", unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
}

// HostID is the number that id of a container has on the host.
func HostID(id uint32, mappings []specs.LinuxIDMapping) (int, error) {
	if len(mappings) == 0 {
		return int(id), nil
	}
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + (id - m.ContainerID)), nil
		}
	}
	return 0, fmt.Errorf("owner %d has no number in the user namespace: %w", id, errs.Invalid)
}

// namespace returns a descriptor of a user namespace with the mappings. It
// needs a process to be made in: one that is traced, and so stops before its
// first instruction, and is killed there.
func namespace(m Mappings) (int, error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"berth-userns"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: sysMappings(m.UIDs), GidMappings: sysMappings(m.GIDs),
			GidMappingsEnableSetgroups: true, Ptrace: true, Pdeathsig: syscall.SIGKILL,
		},
	})
	if err != nil {
		return -1, err
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	killErr := p.Kill()
	if _, waitErr := p.Wait(); killErr == nil {
		killErr = waitErr
	}
	return fd, errors.Join(err, killErr)
}

func sysMappings(in []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, m := range in {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return out
}

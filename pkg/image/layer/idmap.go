package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// mappedLayers is the store of layers as a user namespace sees it, mounted for
// as long as it takes to mount an overlay over it: overlay keeps private clones.
// Files of layers keep their numbers on disk, so layers are shared and nothing is
// copied to change its owner. The writable directory is not mapped: overlay makes
// its work directory as the host's root, who has no number in the namespace; its
// files have the host's numbers.
type mappedLayers struct {
	dir string
}

// mapped mounts the store for root's mappings; the caller closes it.
func (r *Roots) mapped(root Root) (*mappedLayers, error) {
	ns, err := userNamespace(root.UIDMappings, root.GIDMappings)
	if err != nil {
		return nil, fmt.Errorf("user namespace: %w", err)
	}
	defer unix.Close(ns)
	m := &mappedLayers{dir: filepath.Join(r.mounts, ingestPrefix+root.ID)}
	if err := m.mount(r.layers.dir, ns); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *mappedLayers) mount(dir string, ns int) error {
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("clone mount of %s: %w", dir, err)
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(ns)}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("file system of %s has no idmapped mounts (%w): %w", dir, err, errs.Unsupported)
		}
		return fmt.Errorf("idmap mount of %s: %w", dir, err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, m.dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", m.dir, err)
	}
	return nil
}

// close takes the mount away again; OpenRoots sweeps what cannot be.
func (m *mappedLayers) close() {
	_ = unix.Unmount(m.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // not mounted yet, where mount failed
	_ = os.Remove(m.dir)
}

// hostID is the number that id of a container has on the host.
func hostID(id uint32, mappings []specs.LinuxIDMapping) (int, error) {
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

// userNamespace returns a descriptor of a user namespace with the mappings. It
// needs a process to be made in: one that is traced, and so stops before its
// first instruction, and is killed there.
func userNamespace(uids, gids []specs.LinuxIDMapping) (int, error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"berth-userns"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: sysMappings(uids), GidMappings: sysMappings(gids),
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

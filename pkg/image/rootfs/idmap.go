package rootfs

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/idmap"
)

// mappedLayers is what holds layers as a user namespace sees it, mounted for
// as long as it takes to mount an overlay over it: overlay keeps private clones.
// Files of layers keep their numbers on disk, so layers are shared and nothing is
// copied to change its owner. The writable directory is not mapped: overlay makes
// its work directory as the host's root, who has no number in the namespace; its
// files have the host's numbers.
type mappedLayers struct {
	dir string
}

// mapped mounts base for root's mappings; the caller closes it.
func (r *Roots) mapped(root Root, base string) (*mappedLayers, error) {
	m := &mappedLayers{dir: filepath.Join(r.mounts, trashPrefix+root.ID)}
	if err := m.mount(base, root.mappings()); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (r Root) mappings() idmap.Mappings {
	return idmap.Mappings{UIDs: r.UIDMappings, GIDs: r.GIDMappings}
}

func (m *mappedLayers) mount(dir string, mappings idmap.Mappings) error {
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	clone, err := idmap.Clone(fd, 0, mappings)
	if err != nil {
		return fmt.Errorf("map owners of %s: %w", dir, err)
	}
	defer unix.Close(clone)
	return idmap.Attach(clone, m.dir)
}

// close takes the mount away again; Open sweeps what cannot be.
func (m *mappedLayers) close() {
	_ = unix.Unmount(m.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // not mounted yet, where mount failed
	_ = os.Remove(m.dir)
}

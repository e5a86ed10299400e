package mounts

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Bind is a private bind mount.
type Bind struct {
	target string
	fd     int
	inDev  bool
}

// BindOptions are what is not plain about a bind mount.
type BindOptions struct {
	// Exact gives the mount Attributes (MOUNT_ATTR_RDONLY, NOSUID, NODEV,
	// NOEXEC) and takes those away that are not named; else it has the source's.
	Exact      bool
	Attributes uint64
	// InDev is for a target right below the container's own /dev, where it is
	// made.
	InDev bool
}

const settable = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// OpenBind opens source, with the mounts below it, for target.
func OpenBind(source, target string, o BindOptions) (*Bind, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: source, Err: err}
	}
	b := &Bind{target: target, fd: fd, inDev: o.InDev}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err == nil && o.Exact {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: o.Attributes, Attr_clr: settable &^ o.Attributes})
	}
	if err != nil {
		b.Close()
		return nil, &os.PathError{Op: "mount_setattr", Path: source, Err: err}
	}
	return b, nil
}

// Place implements Placement.
func (b *Bind) Place(root int) error {
	if b.inDev {
		return b.placeInDev(root)
	}
	target, err := open(root, b.target, 0, resolve)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return Move(b.fd, target, "")
}

func (b *Bind) placeInDev(root int) error {
	dev, err := Open(root, path.Dir(b.target), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	var st unix.Stat_t
	if err := unix.Fstat(b.fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := makeAt(dev, path.Base(b.target), st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return &os.PathError{Op: "make mount point", Path: b.target, Err: err}
	}
	return Move(b.fd, dev, path.Base(b.target))
}

// Close implements Placement.
func (b *Bind) Close() { _ = unix.Close(b.fd) } // no more than a reference

// Ready reports whether source can be bound at target below rootfs by Place, and
// makes the target where only its last name is missing.
func Ready(rootfs, source, target string) bool {
	info, err := os.Stat(source)
	if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
		return false
	}
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(root)
	fd, err := open(root, target, 0, resolve)
	if errors.Is(err, unix.ENOENT) {
		return makeTarget(root, target, info.IsDir()) == nil
	}
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && (st.Mode&unix.S_IFMT == unix.S_IFDIR) == info.IsDir() && st.Mode&unix.S_IFMT != unix.S_IFLNK
}

func makeTarget(root int, target string, directory bool) error {
	parent, err := open(root, path.Dir(target), unix.O_DIRECTORY, resolve)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return makeAt(parent, path.Base(target), directory)
}

func makeAt(dir int, name string, directory bool) error {
	if directory {
		return unix.Mkdirat(dir, name, 0o755)
	}
	return unix.Mknodat(dir, name, unix.S_IFREG|0o644, 0)
}

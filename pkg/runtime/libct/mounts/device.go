package mounts

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Device is a node in /dev.
type Device struct {
	Name     string
	Mode     uint32 // type and permissions, as in stat(2)
	Number   uint64
	UID, GID int
}

// Devices are nodes to be made in the container's own /dev, a tmpfs that is empty
// but for mounts.
type Devices []Device

// Place implements Placement. A name that is taken, by a mount, stays as it is.
func (d Devices) Place(root int) error {
	dir, err := Open(root, "/dev", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for _, n := range d {
		err := unix.Mknodat(dir, n.Name, n.Mode, int(n.Number))
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err == nil { // whatever the umask
			err = unix.Fchmodat(dir, n.Name, n.Mode&^unix.S_IFMT, 0)
		}
		if err == nil && (n.UID != 0 || n.GID != 0) {
			err = unix.Fchownat(dir, n.Name, n.UID, n.GID, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return &os.PathError{Op: "make device", Path: "/dev/" + n.Name, Err: err}
		}
	}
	return nil
}

// Close implements Placement.
func (Devices) Close() {}

// OwnDev reports whether /dev below rootfs can be a mount's place as it is.
func OwnDev(rootfs string) bool {
	info, err := os.Lstat(rootfs + "/dev")
	return err == nil && info.IsDir() || errors.Is(err, os.ErrNotExist)
}

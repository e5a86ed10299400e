package mounts

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Filesystem is a file system of the container's own, such as its devpts. It is
// made when it is placed, in the namespaces whose it is to be: see Place.
type Filesystem struct {
	Type, Target string
	// Attributes are MOUNT_ATTR_….
	Attributes uint64
	// Options are the file system's, as NAME or NAME=VALUE.
	Options []string
	// InDev is as in BindOptions.
	InDev bool
}

// Place implements Placement.
func (f Filesystem) Place(root int) error {
	mount, err := f.open()
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if !f.InDev {
		target, err := open(root, f.Target, unix.O_DIRECTORY, resolve)
		if err != nil {
			return err
		}
		defer unix.Close(target)
		return Move(mount, target, "")
	}
	dev, err := Open(root, path.Dir(f.Target), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	if err := unix.Mkdirat(dev, path.Base(f.Target), 0o755); err != nil {
		return &os.PathError{Op: "mkdirat", Path: f.Target, Err: err}
	}
	return Move(mount, dev, path.Base(f.Target))
}

func (f Filesystem) open() (int, error) {
	fs, err := unix.Fsopen(f.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, &os.PathError{Op: "fsopen", Path: f.Type, Err: err}
	}
	defer unix.Close(fs)
	set := func(option string) error {
		name, value, has := strings.Cut(option, "=")
		if has {
			return unix.FsconfigSetString(fs, name, value)
		}
		return unix.FsconfigSetFlag(fs, name)
	}
	err = unix.FsconfigSetString(fs, "source", f.Type)
	if f.Attributes&unix.MOUNT_ATTR_RDONLY != 0 {
		err = errors.Join(err, set("ro"))
	}
	for _, o := range f.Options {
		err = errors.Join(err, set(o))
	}
	if err = errors.Join(err, unix.FsconfigCreate(fs)); err != nil {
		return -1, &os.PathError{Op: "fsconfig", Path: f.Type, Err: err}
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(f.Attributes))
	if err != nil {
		return -1, &os.PathError{Op: "fsmount", Path: f.Type, Err: err}
	}
	return mount, nil
}

// Close implements Placement.
func (Filesystem) Close() {}

// ReadyFor reports whether a file system can be placed at target below rootfs,
// and makes the directory where only that is missing.
func ReadyFor(rootfs, target string) bool {
	return Ready(rootfs, "/", target)
}

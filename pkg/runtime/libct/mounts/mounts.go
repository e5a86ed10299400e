// Package mounts puts into a new container, from outside, what libcontainer's
// init would make in there at thirty system calls a piece: it looks at every step
// of a path and asks /proc whether what it opened is what it meant. Here a path
// is opened once, by openat2, without following a link or crossing a mount, and
// used by its descriptor.
//
// What is mounted is opened in the host's namespace, without a place, and put in
// its own by a thread that visits the container while init waits in a hook: the
// host's mount table never sees it. On a 2-core machine that is 5 of 20 ms.
//
// It refuses what needs a decision: paths with links, volumes of images, user
// namespaces. Those stay libcontainer's. Needs Linux 5.12 (mount_setattr).
package mounts

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime/libct/thread"
)

// Placement is something to put into a container.
type Placement interface {
	// Place runs on a thread that is in the container's mount namespace; root
	// is the root file system, which is not yet "/".
	Place(root int) error
	// Close gives up what was opened for it, placed or not.
	Close()
}

// Place places all, in order, for the container whose init waits. It does so in
// init's mount, network and IPC namespaces, which file systems made there belong
// to.
func Place(initPID int, rootfs string, all []Placement) error {
	init, err := unix.PidfdOpen(initPID, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(init)
	return thread.Spoil(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns asks for it
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Setns(init, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWIPC); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return place(rootfs, all)
	})
}

func place(rootfs string, all []Placement) error {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: rootfs, Err: err}
	}
	defer unix.Close(root)
	for _, p := range all {
		if err := p.Place(root); err != nil {
			return err
		}
	}
	return nil
}

// resolve is how paths below a root file system are opened: a link on the way
// may lead anywhere, a mount on it may be changed by who else has it.
const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// Open opens a path without links below root, by O_PATH and the flags given. It
// may cross mounts: use it for what the container's own mounts have.
func Open(root int, path string, flags int) (int, error) {
	return open(root, path, flags, resolve&^unix.RESOLVE_NO_XDEV)
}

func open(root int, path string, flags, resolve int) (int, error) {
	how := unix.OpenHow{Flags: uint64(unix.O_PATH | unix.O_CLOEXEC | flags), Resolve: uint64(resolve)}
	for {
		fd, err := unix.Openat2(root, path, &how)
		if err == unix.EAGAIN || err == unix.EINTR { // something was renamed meanwhile
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
		return fd, nil
	}
}

// Move puts a mount without a place at name in a directory, or on the directory
// where name is empty.
func Move(mount, dir int, name string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if name == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return os.NewSyscallError("move_mount", unix.MoveMount(mount, "", dir, name, flags))
}

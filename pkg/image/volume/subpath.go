package volume

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/idmap"
)

// attributes are those of every volume. Programs may be run from one, as with
// other runtimes, but gain nothing by it.
const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// attach mounts what sub names below root at target, which it makes.
func attach(root, sub string, m idmap.Mappings, target string) error {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(base)
	fd, err := openSub(base, sub)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	clone, err := idmap.Clone(fd, attributes, m)
	if err != nil {
		return err
	}
	defer unix.Close(clone)
	if err := makeTarget(fd, target); err != nil {
		return err
	}
	return idmap.Attach(clone, target)
}

// openSub opens the directory or file that a sub path names below base. Links are
// followed as long as they stay below it.
func openSub(base int, sub string) (int, error) {
	p := strings.TrimLeft(sub, "/")
	if p == "" {
		p = "."
	}
	if strings.ContainsRune(p, 0) {
		return -1, fmt.Errorf("sub path %.200q: %w", sub, errs.Invalid)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(base, p, &how)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		fd, err = unix.Openat2(base, p, &how)
	}
	if err != nil {
		return -1, refuse(sub, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("fstat", err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFDIR && kind != unix.S_IFREG {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("sub path %.200q is neither a directory nor a regular file of the image: choose one that is: %w", sub, errs.Invalid)
	}
	return fd, nil
}

// refuse says what is wrong with a sub path and what to do.
func refuse(sub string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("sub path %.200q does not exist in the image: correct it, or use an image that has it: %w", sub, errs.Invalid)
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("sub path %.200q leads out of the image, by \"..\" or a symbolic link: name the place itself, below the image's root: %w", sub, errs.Invalid)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		return fmt.Errorf("sub path %.200q: %w: %w", sub, err, errs.Invalid)
	}
	return &os.PathError{Op: "open sub path", Path: sub, Err: err}
}

// makeTarget makes an empty file or directory to mount what fd has open on.
func makeTarget(fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	_ = os.Remove(target) // of another kind, from before a crash
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.Mkdir(target, 0o700)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

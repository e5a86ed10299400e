// Package relabel gives files SELinux labels. It decides nothing about labels.
package relabel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// system are the host's directories that are relabelled for nobody, since the host's
// programs would lose them (CVE-2021-43816); what is below may be.
var system = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/opt", "/proc", "/root",
	"/run", "/sbin", "/srv", "/sys", "/system", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/log",
}

// Tree labels what is at a path and all below it. Other containers may have
// the volume and swap its names meanwhile: nothing outside of it is reached. What
// vanishes is not missed. The error is errs.Invalid for the host's own directories.
func Tree(ctx context.Context, path, label string) error {
	if slices.Contains(system, filepath.Clean(path)) {
		return fmt.Errorf("it is the host's own: %w", errs.Invalid)
	}
	top, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer top.Close()
	info, err := top.Stat()
	if err == nil {
		err = setLabel(top, label)
	}
	if err != nil || !info.IsDir() {
		return err
	}
	root, err := os.OpenRoot(procfd.Path(top.Fd()))
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = below(top, name, label)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		return err
	})
}

func below(top *os.File, name, label string) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(top.Fd()), name, &how)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return setLabel(f, label)
}

// setLabel labels what an O_PATH file holds, be it a link. A file system without
// labels, such as NFS, has one for all of it.
func setLabel(f *os.File, label string) error {
	err := unix.Setxattr(procfd.Path(f.Fd()), "security.selinux", []byte(label), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

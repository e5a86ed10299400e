package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/internal/procfd"
	"github.com/berth-run/berth/pkg/spec"
)

// relabelMounts gives the container's SELinux label to the volumes that ask for
// it. Without SELinux, and for a container that it does not confine, there is no
// label.
func relabelMounts(ctx context.Context, c *cri.ContainerConfig, sources map[string]string, label string) error {
	for _, m := range c.GetMounts() {
		if label == "" || !m.GetSelinuxRelabel() || spec.IsImageMount(m) {
			continue
		}
		if err := relabel(ctx, sources[m.GetHostPath()], label); err != nil {
			return fmt.Errorf("give %s the SELinux label %s: %w", m.GetHostPath(), label, err)
		}
	}
	return nil
}

// relabel labels what is at a path and all below it. Other containers may have
// the volume and swap its names meanwhile: nothing outside of it is reached. What
// vanishes is not missed.
func relabel(ctx context.Context, path, label string) error {
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
			var f *os.File
			if f, err = openIn(procfd.Path(top.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW); err == nil {
				defer f.Close()
				err = setLabel(f, label)
			}
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		return err
	})
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

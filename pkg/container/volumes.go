package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/procfd"
	"github.com/berth-run/berth/pkg/spec"
)

// volumes makes a directory for each VOLUME of the image, filled with what the
// image has at that place.
func (s *Service) volumes(ctx context.Context, id string, in spec.Input) ([]spec.Volume, error) {
	paths, err := spec.ImageVolumes(in.Image, in.Container)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	home := filepath.Join(s.dir(id), "volumes")
	if err := os.Mkdir(home, 0o711); err != nil {
		return nil, err
	}
	var out []spec.Volume
	for i, path := range paths {
		v := spec.Volume{ContainerPath: path, HostPath: filepath.Join(home, strconv.Itoa(i))}
		if err := copyUp(ctx, in.RootFS, path, v.HostPath); err != nil {
			return nil, fmt.Errorf("fill image volume %s: %w", path, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// copyUp makes the directory to and copies what rootfs has at path into it.
func copyUp(ctx context.Context, rootfs, path, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	dir, err := openIn(rootfs, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return ownLike(rootfs, to) // nothing there: an empty volume of the container's root
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	from, err := os.OpenRoot(procfd.Path(dir.Fd()))
	if err != nil {
		return err
	}
	defer from.Close()
	target, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer target.Close()
	return (&copier{ctx, from, target}).tree(".")
}

// ownLike gives the directory to the owner of another: in a user namespace the
// root file system shows the container's root.
func ownLike(other, dir string) error {
	info, err := os.Stat(other)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return os.Chown(dir, int(st.Uid), int(st.Gid))
}

// copier copies a tree between two roots that nothing leads out of.
type copier struct {
	ctx      context.Context
	from, to *os.Root
}

// tree copies a directory that exists on both sides.
func (c *copier) tree(name string) error {
	d, err := c.from.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(filepath.Join(name, e.Name())); err != nil {
			return err
		}
	}
	info, err := d.Stat()
	if err != nil {
		return err
	}
	return c.attributes(name, info) // last: the copying changes times
}

func (c *copier) entry(name string) error {
	info, err := c.from.Lstat(name)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := c.to.Mkdir(name, 0o700); err != nil {
			return err
		}
		return c.tree(name)
	case fs.ModeSymlink:
		return c.link(name, info)
	case 0:
		return c.file(name)
	}
	return nil // devices, pipes and sockets are not content
}

func (c *copier) link(name string, info fs.FileInfo) error {
	target, err := c.from.Readlink(name)
	if err != nil {
		return err
	}
	if err := c.to.Symlink(target, name); err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return c.to.Lchown(name, int(st.Uid), int(st.Gid))
}

func (c *copier) file(name string) error {
	in, err := c.from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	return c.attributes(name, info)
}

// attributes gives owner, mode and time. The owner comes first: changing it
// clears setuid.
func (c *copier) attributes(name string, info fs.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	return errors.Join(
		c.to.Chown(name, int(st.Uid), int(st.Gid)),
		c.to.Chmod(name, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)),
		c.to.Chtimes(name, info.ModTime(), info.ModTime()),
	)
}

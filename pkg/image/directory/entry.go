package directory

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/treesum"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// apply puts one entry of the stream into the tree. content is read only for a
// regular file.
func (t *tree) apply(h *tar.Header, content io.Reader) error {
	p, err := entry.Name(h.Name)
	if err != nil {
		return err
	}
	if err := entry.CheckOwner(h); err != nil {
		return err
	}
	if p == "." {
		return t.applyRoot(h)
	}
	if t.plain && strings.Contains("/"+p, "/"+entry.WhiteoutPrefix) {
		return errWhiteout
	}
	if t.skips(p, h) {
		return nil
	}
	fd, err := t.parent(p)
	if err != nil {
		return err
	}
	base := path.Base(p)
	if strings.HasPrefix(base, entry.WhiteoutPrefix) {
		return t.whiteout(fd, p, base)
	}
	delete(t.links, p)
	switch h.Typeflag {
	case tar.TypeDir:
		return t.directory(fd, base, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.regular(fd, base, h, content)
	case tar.TypeSymlink:
		return t.symlink(fd, base, h)
	case tar.TypeLink:
		return t.link(fd, p, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return t.node(fd, base, h)
	}
	return fmt.Errorf("entry type %q: %w", h.Typeflag, errs.Unsupported)
}

func (t *tree) applyRoot(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("root of the layer is not a directory: %w", errs.Invalid)
	}
	d, err := openBelow(t.root, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return t.list(d, h)
}

// directory makes or updates a directory. One that replaces something else of
// this layer hides what layers below have under its name.
func (t *tree) directory(fd int, base string, h *tar.Header) error {
	st, err := statAt(fd, base)
	switch {
	case errors.Is(err, unix.ENOENT):
		err = unix.Mkdirat(fd, base, 0o700)
	case err == nil && !isDir(st):
		if err = unix.Unlinkat(fd, base, 0); err == nil {
			t.removed = true
			t.forget()
			if fd, err = t.reparent(h); err == nil {
				err = t.makeOpaque(fd, base)
			}
		}
	}
	if err != nil {
		return err
	}
	d, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return t.list(d, h)
}

// reparent opens the entry's parent again after forget.
func (t *tree) reparent(h *tar.Header) (int, error) {
	p, err := entry.Name(h.Name)
	if err != nil {
		return -1, err
	}
	return t.parent(p)
}

// list gives the directory d the entry's attributes: it is no longer implied.
func (t *tree) list(d int, h *tar.Header) error {
	st, err := statAt(d, "")
	if err != nil {
		return err
	}
	delete(t.implied, st.Ino)
	return attributes(d, h)
}

// replace makes room for an entry that is not a directory and returns the
// parent's descriptor, which may be a new one.
func (t *tree) replace(fd int, base string, h *tar.Header) (int, error) {
	st, err := statAt(fd, base)
	if errors.Is(err, unix.ENOENT) {
		return fd, nil
	}
	if err != nil {
		return -1, err
	}
	t.removed = true
	if isDir(st) {
		err = removeTree(fd, base)
	} else {
		err = unix.Unlinkat(fd, base, 0)
	}
	if err != nil {
		return -1, err
	}
	t.forget()
	return t.reparent(h)
}

// removeTree removes the directory base of fd. os.Root opens nothing outside.
func removeTree(fd int, base string) error {
	root, err := os.OpenRoot(procfd.Path(fd))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(base)
}

func (t *tree) regular(fd int, base string, h *tar.Header, content io.Reader) error {
	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	f, err := unix.Openat(fd, base, flags, 0o600)
	if errors.Is(err, unix.EEXIST) {
		if fd, err = t.replace(fd, base, h); err != nil {
			return err
		}
		f, err = unix.Openat(fd, base, flags, 0o600)
	}
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(f), h.Name)
	defer file.Close()
	var sum treesum.File
	if err := fill(file, h, io.TeeReader(content, &sum)); err != nil {
		return err
	}
	t.sum.Add(sum)
	if err := attributes(f, h); err != nil {
		return err
	}
	return setTime(fd, base, h)
}

func (t *tree) symlink(fd int, base string, h *tar.Header) error {
	fd, err := t.replace(fd, base, h)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(h.Linkname, fd, base); err != nil {
		return err
	}
	if err := unix.Fchownat(fd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return setTime(fd, base, h)
}

// link makes a hard link, or notes it where the target is not of this layer.
func (t *tree) link(fd int, p string, h *tar.Header) error {
	target, err := entry.Name(h.Linkname)
	if err != nil {
		return err
	}
	if target == p {
		return fmt.Errorf("hard link %.200q to itself: %w", p, errs.Invalid)
	}
	if further, ok := t.links[target]; ok {
		target = further
	}
	if fd, err = t.replace(fd, path.Base(p), h); err != nil {
		return err
	}
	from, err := openBelow(t.root, path.Dir(target), unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(from)
		st, err := statAt(from, path.Base(target))
		if err == nil && isDir(st) {
			return fmt.Errorf("hard link to the directory %.200q: %w", target, errs.Invalid)
		}
		if err == nil && !isWhiteout(st) {
			return unix.Linkat(from, path.Base(target), fd, path.Base(p), 0)
		}
	}
	t.links[p] = target
	return t.budget.Note(p, target)
}

// node makes a device or FIFO. A character device 0/0 is overlay's whiteout,
// and is one here too.
func (t *tree) node(fd int, base string, h *tar.Header) error {
	kind := uint32(unix.S_IFIFO)
	switch h.Typeflag {
	case tar.TypeChar:
		kind = unix.S_IFCHR
	case tar.TypeBlock:
		kind = unix.S_IFBLK
	}
	if err := entry.CheckDevice(h); err != nil {
		return err
	}
	fd, err := t.replace(fd, base, h)
	if err != nil {
		return err
	}
	if err := unix.Mknodat(fd, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
		return err
	}
	if kind == unix.S_IFCHR && h.Devmajor == 0 && h.Devminor == 0 {
		return t.noteWhiteout(fd)
	}
	if err := unix.Fchownat(fd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := chmodAt(fd, base, uint32(h.Mode&0o7777)); err != nil {
		return err
	}
	return setTime(fd, base, h)
}

// attributes sets owner, extended attributes and mode of an open file or
// directory, in the order in which the kernel does not drop them again.
func attributes(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	for k, v := range h.PAXRecords {
		key, ok := strings.CutPrefix(k, entry.XattrRecord)
		if !ok || !entry.AllowedXattr(key) {
			continue
		}
		err := unix.Fsetxattr(fd, key, []byte(v), 0)
		if errors.Is(err, unix.EOPNOTSUPP) && key != "security.capability" {
			continue // the file system has no such attributes: nothing that a program relies on
		}
		if err != nil {
			return fmt.Errorf("attribute %.100q: %w", key, err)
		}
	}
	return unix.Fchmod(fd, uint32(h.Mode&0o7777))
}

func setTime(fd int, base string, h *tar.Header) error {
	ts := timespec(h.ModTime)
	return unix.UtimesNanoAt(fd, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// timespec converts any time: UnixNano would overflow for hostile ones.
func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

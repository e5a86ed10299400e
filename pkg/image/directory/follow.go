package directory

import (
	"errors"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// follow settles a directory of own in whose place the view has a symbolic link:
// applied in order, the stream would have followed it. A link that leads to no
// directory gives way to own's.
func (st *settler) follow(p string) error {
	dir, err := openBelow(st.below, p, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	target, err := st.inView(dir)
	if err != nil {
		return err
	}
	if err := st.copyLink(p); err != nil {
		return err
	}
	st.moved[p] = target
	if opaque(st.own, p) {
		if err := st.hideAll(p, target); err != nil {
			return err
		}
	}
	return st.merge(p, target)
}

// copyLink puts the view's symbolic link p into out.
func (st *settler) copyLink(p string) error {
	from, err := openStrict(st.below, path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	s, err := statAt(from, path.Base(p))
	if err != nil {
		return err
	}
	text, err := readlinkAt(from, path.Base(p))
	if err != nil {
		return err
	}
	if err := st.directory(path.Dir(p)); err != nil {
		return err
	}
	to, err := openStrict(st.out, path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if err := makeRoom(to, path.Base(p)); err != nil {
		return err
	}
	st.made++
	if err := unix.Symlinkat(text, to, path.Base(p)); err != nil {
		return err
	}
	if err := unix.Fchownat(to, path.Base(p), int(s.Uid), int(s.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, path.Base(p), []unix.Timespec{s.Atim, s.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// merge links what own has in the directory p into out's directory to.
func (st *settler) merge(p, to string) error {
	children, err := readDir(st.own, p)
	if err != nil {
		return err
	}
	for _, c := range children {
		from, dest := path.Join(p, c), path.Join(to, c)
		s, err := lookup(st.own, from)
		if err != nil {
			return err
		}
		if isWhiteout(s) {
			if _, err := lookup(st.below, dest); err != nil {
				continue // nothing to hide, and nothing to merge the whiteout away
			}
		}
		if !isDir(s) {
			if err := st.link(st.own, from, dest); err != nil {
				return err
			}
			continue
		}
		if err := st.mergeDir(from, dest); err != nil {
			return err
		}
	}
	return nil
}

func (st *settler) mergeDir(from, dest string) error {
	if st.implied[from] {
		s, err := lookup(st.below, dest)
		if err == nil && s.Mode&unix.S_IFMT == unix.S_IFLNK {
			if dir, err := openBelow(st.below, dest, unix.O_PATH|unix.O_DIRECTORY); err == nil {
				defer unix.Close(dir)
				if dest, err = st.inView(dir); err != nil {
					return err
				}
			}
		}
		st.implied[dest] = true
	}
	if err := st.directory(dest); err != nil {
		return err
	}
	if !st.implied[from] {
		if err := copyAttributesTo(st.own, from, st.out, dest); err != nil {
			return err
		}
	}
	if opaque(st.own, from) {
		fd, err := openStrict(st.out, path.Dir(dest))
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := setOpaque(fd, path.Base(dest)); err != nil {
			return err
		}
	}
	return st.merge(from, dest)
}

// hideAll hides what the view has in the directory to, but for what own has
// there, under either name.
func (st *settler) hideAll(p, to string) error {
	names, err := readDir(st.below, to)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := lookup(st.own, path.Join(p, n)); err == nil {
			continue
		}
		if _, err := lookup(st.own, path.Join(to, n)); err == nil {
			continue
		}
		if err := st.directory(to); err != nil {
			return err
		}
		fd, err := openStrict(st.out, to)
		if err != nil {
			return err
		}
		st.made++
		if err = makeRoom(fd, n); err == nil {
			err = unix.Mknodat(fd, n, unix.S_IFCHR, 0)
		}
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

func readDir(root int, p string) ([]string, error) {
	fd, err := unix.Openat2(root, p, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), p)
	defer d.Close()
	return d.Readdirnames(-1)
}

// sameAttributes reports whether own's directory p shows what the view's does.
func (st *settler) sameAttributes(p string) (bool, error) {
	a, err := lookup(st.own, p)
	if err != nil {
		return false, err
	}
	b, err := lookup(st.below, p)
	if err != nil {
		return false, err
	}
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid {
		return false, nil
	}
	fd, err := openStrict(st.below, p)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := xattrs(fd)
	return len(names) == 0, err
}

// copyAttributes gives out's directory p what root's has.
func copyAttributes(root, out int, p string) error { return copyAttributesTo(root, p, out, p) }

// copyAttributesTo is copyAttributes between two paths.
func copyAttributesTo(root int, from string, out int, to string) error {
	src, err := openStrict(root, from)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := openStrict(out, to)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	s, err := statAt(src, "")
	if err != nil {
		return err
	}
	if err := unix.Chown(procfd.Path(dst), int(s.Uid), int(s.Gid)); err != nil {
		return err
	}
	names, err := xattrs(src)
	if err != nil {
		return err
	}
	for _, n := range names {
		value, err := procfd.Xattr(src, n)
		if err != nil {
			return err
		}
		if err := unix.Setxattr(procfd.Path(dst), n, value, 0); err != nil {
			return err
		}
	}
	if err := unix.Chmod(procfd.Path(dst), s.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procfd.Path(dst), []unix.Timespec{s.Atim, s.Mtim}, 0)
}

// xattrs lists the attributes of an open directory that layers may set.
func xattrs(fd int) ([]string, error) {
	names, err := procfd.Xattrs(fd)
	return slices.DeleteFunc(names, func(name string) bool { return !entry.AllowedXattr(name) }), err
}

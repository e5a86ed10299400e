package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // names of aufs itself, and the opaque marker
	whiteoutOpaque = ".wh..wh..opq"
	linkTargets    = ".wh..wh.plnk" // aufs's directory of files with several names
)

// skips reports whether an entry is of aufs itself and is to be passed over. Of
// its directories only files that hard links point to are taken, for as long as
// the stream lasts.
func (t *tree) skips(p string, h *tar.Header) bool {
	top, below, found := strings.Cut(p, "/")
	if !found || !strings.HasPrefix(top, whiteoutMeta) {
		return false
	}
	if top != linkTargets || h.Typeflag != tar.TypeReg || strings.HasPrefix(path.Base(below), whiteoutPrefix) {
		return true
	}
	t.targets = true
	return false
}

// dropTargets removes aufs's link targets; the links stay.
func (t *tree) dropTargets() error {
	if !t.targets {
		return nil
	}
	t.forget()
	return removeTree(t.root, linkTargets)
}

// whiteout hides a name, or all names of a directory, of the layers below. What
// this layer itself has under the name stays, in whatever order the stream lists
// the two.
func (t *tree) whiteout(fd int, p, base string) error {
	if base == whiteoutOpaque {
		d, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(d)
		return unix.Fsetxattr(d, opaqueXattr, []byte("y"), 0)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("whiteout %.200q names nothing: %w", p, errs.Invalid)
	}
	if _, ok := t.links[path.Join(path.Dir(p), hidden)]; ok {
		return nil // the link, made later, hides it
	}
	st, err := statAt(fd, hidden)
	switch {
	case errors.Is(err, unix.ENOENT):
		if err := unix.Mknodat(fd, hidden, unix.S_IFCHR, 0); err != nil {
			return err
		}
		return t.noteWhiteout(fd)
	case err == nil && isDir(st):
		delete(t.implied, st.Ino) // the directory below is gone, and its owner with it
		return setOpaque(fd, hidden)
	}
	return err
}

// noteWhiteout remembers a directory that holds whiteouts.
func (t *tree) noteWhiteout(dir int) error {
	p, err := pathBelow(t.dir, dir)
	if err != nil || t.whiteouts[p] {
		return err
	}
	t.whiteouts[p] = true
	return t.budget.note(p)
}

// pathBelow returns the path below dir, where nothing is a link, of a directory
// opened there.
func pathBelow(dir string, fd int) (string, error) {
	p, err := readlinkAt(unix.AT_FDCWD, procPath(fd))
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(p+"/", dir+"/")
	if !ok {
		return "", fmt.Errorf("%.200q is not below %.200q: %w", p, dir, errs.Invalid)
	}
	return path.Join(".", rel), nil
}

package directory

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// skips reports whether an entry is of aufs itself and is to be passed over. Of
// its directories only files that hard links point to are taken, for as long as
// the stream lasts.
func (t *tree) skips(p string, h *tar.Header) bool {
	aufs, target := entry.OfAufs(p, h)
	t.targets = t.targets || target
	return aufs && !target
}

// dropTargets removes aufs's link targets; the links stay.
func (t *tree) dropTargets() error {
	if !t.targets {
		return nil
	}
	t.removed = true
	t.forget()
	return removeTree(t.root, entry.LinkTargets)
}

// whiteout hides a name, or all names of a directory, of the layers below. What
// this layer itself has under the name stays, in whatever order the stream lists
// the two.
func (t *tree) whiteout(fd int, p, base string) error {
	if base == entry.WhiteoutOpaque {
		d, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(d)
		return unix.Fsetxattr(d, overlay.Opaque, []byte("y"), 0)
	}
	hidden, err := entry.Hidden(p)
	if err != nil || hidden == "" {
		return err
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
	return t.budget.Note(p)
}

// pathBelow returns the path below dir, where nothing is a link, of a directory
// opened there.
func pathBelow(dir string, fd int) (string, error) {
	p, err := readlinkAt(unix.AT_FDCWD, procfd.Path(fd))
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(p+"/", dir+"/")
	if !ok {
		return "", fmt.Errorf("%.200q is not below %.200q: %w", p, dir, errs.Invalid)
	}
	return path.Join(".", rel), nil
}

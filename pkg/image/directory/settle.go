package directory

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/pkg/internal/procfd"
)

// settler makes the tree of a stacking layer, out, that lies directly above a
// layer, own, and below which is the view of the layers under it. Together they
// show what applying own's stream in order would have made:
//
//   - a directory that own implies gets owner, mode and attributes of the view's;
//   - where the view has a symbolic link to a directory in its place, out has the
//     link, and what own has in the directory is linked to where it leads;
//   - a hard link to a file of the view is made to that file itself;
//   - a directory of whiteouts that has nothing below to hide is made, since
//     overlay takes whiteouts out of merged directories only.
type settler struct {
	view            string
	trees           []string // below, the lowest first
	below, own, out int
	implied         map[string]bool
	moved           map[string]string // directory of own → where the view's link leads
	made            int64
}

func (st *settler) run(info Made) error {
	err := st.settle(info)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		// The layer puts something through a link of the layers below to where it
		// has a file or a link itself.
		return fmt.Errorf("layer contradicts itself through links of the layers below: %w: %w", err, errs.Invalid)
	}
	return err
}

func (st *settler) settle(info Made) error {
	if err := copyAttributes(st.source("."), st.out, "."); err != nil {
		return err
	}
	for _, p := range info.Implied { // sorted: parents first
		if err := st.settleDir(p); err != nil {
			return fmt.Errorf("directory %.200q: %w", p, err)
		}
	}
	for _, p := range info.Whiteouts {
		if err := st.settleWhiteouts(p); err != nil {
			return fmt.Errorf("whiteouts in %.200q: %w", p, err)
		}
	}
	for _, l := range info.Links {
		if err := st.settleLink(l); err != nil {
			return fmt.Errorf("hard link %.200q: %w", l.Path, err)
		}
	}
	return nil
}

// source is the tree whose directory p shows, attributes and all, if nothing of
// out is in its place.
func (st *settler) source(p string) int {
	if st.implied[p] {
		if s, err := lookup(st.below, p); err == nil && isDir(s) && !st.hidden(p) {
			return st.below
		}
	}
	if _, err := lookup(st.own, p); err == nil {
		return st.own
	}
	return st.below
}

// lookup finds p without following a link anywhere in it.
func lookup(root int, p string) (unix.Stat_t, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	if p != "." {
		dir, err := openStrict(root, path.Dir(p))
		if err != nil {
			return unix.Stat_t{}, err
		}
		defer unix.Close(dir)
		root, p = dir, path.Base(p)
	}
	fd, err := unix.Openat2(root, p, &how)
	if err != nil {
		return unix.Stat_t{}, err
	}
	defer unix.Close(fd)
	return statAt(fd, "")
}

// openStrict opens the directory p below root, without following links.
func openStrict(root int, p string) (int, error) {
	return unix.Openat2(root, p, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// hidden reports whether own hides what is below p's parent: a directory on the
// way is opaque.
func (st *settler) hidden(p string) bool {
	for p != "." {
		p = path.Dir(p)
		if opaque(st.own, p) {
			return true
		}
	}
	return false
}

func opaque(root int, p string) bool {
	fd, err := openStrict(root, p)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	value, err := procfd.Xattr(fd, overlay.Opaque)
	return err == nil && string(value) == "y"
}

func (st *settler) settleDir(p string) error {
	if _, done := st.place(p); done || p != "." && st.hidden(p) {
		return nil
	}
	below, err := lookup(st.below, p)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil // new in this layer
	case err != nil:
		return err
	case below.Mode&unix.S_IFMT == unix.S_IFLNK:
		return st.follow(p)
	case !isDir(below):
		return nil // replaced by the directory
	}
	same, err := st.sameAttributes(p)
	if err != nil || same {
		return err
	}
	if p == "." {
		st.made++ // run has copied them
		return nil
	}
	return st.directory(p)
}

// settleWhiteouts has overlay merge the directory p, so that it does not show the
// whiteouts in it, where nothing below would be merged with it.
func (st *settler) settleWhiteouts(p string) error {
	if _, moved := st.place(p); moved || p == "." {
		return nil
	}
	if s, err := lookup(st.own, p); err != nil || !isDir(s) {
		return nil // replaced by a later entry
	}
	if s, err := lookup(st.below, p); err == nil && isDir(s) && !opaque(st.own, p) && !st.hidden(p) {
		return nil
	}
	return st.directory(p)
}

// place returns where own's path p is to be found in the image, and whether that
// is elsewhere.
func (st *settler) place(p string) (string, bool) {
	for prefix := p; prefix != "."; prefix = path.Dir(prefix) {
		if to, ok := st.moved[prefix]; ok {
			return path.Join(to, strings.TrimPrefix(p, prefix)), true
		}
	}
	return p, false
}

// directory makes p and the directories above it in out, each with the
// attributes that it shows.
func (st *settler) directory(p string) error {
	if p == "." {
		return nil
	}
	if s, err := lookup(st.out, p); err == nil && isDir(s) {
		return nil
	}
	if err := st.directory(path.Dir(p)); err != nil {
		return err
	}
	fd, err := openStrict(st.out, path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := makeRoom(fd, path.Base(p)); err != nil {
		return err
	}
	if err := makeDir(fd, path.Base(p)); err != nil {
		return err
	}
	st.made++
	return copyAttributes(st.source(p), st.out, p)
}

// settleLink links to the file that the view shows as the target.
func (st *settler) settleLink(l Link) error {
	dir, err := openBelow(st.below, path.Dir(l.Target), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("target %.200q: %w: %w", l.Target, err, errs.Invalid)
	}
	defer unix.Close(dir)
	s, err := statAt(dir, path.Base(l.Target))
	if err != nil || isDir(s) {
		return fmt.Errorf("target %.200q is no file of the layers below: %w", l.Target, errs.Invalid)
	}
	resolved, err := st.inView(dir)
	if err != nil {
		return err
	}
	to, _ := st.place(l.Path)
	for _, tree := range slices.Backward(st.trees) { // the highest that has it is what the view shows
		root, err := openPath(tree)
		if err != nil {
			return err
		}
		err = st.link(root, path.Join(resolved, path.Base(l.Target)), to)
		_ = unix.Close(root)
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
	return fmt.Errorf("target %.200q: %w", l.Target, errs.Invalid)
}

// inView returns the path, in the view, of a directory opened there.
func (st *settler) inView(fd int) (string, error) { return pathBelow(st.view, fd) }

// link makes out's path to a link of root's path from.
func (st *settler) link(root int, from, to string) error {
	src, err := openStrict(root, path.Dir(from))
	if err != nil {
		return err
	}
	defer unix.Close(src)
	if _, err := statAt(src, path.Base(from)); err != nil {
		return err
	}
	if err := st.directory(path.Dir(to)); err != nil {
		return err
	}
	dst, err := openStrict(st.out, path.Dir(to))
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if err := makeRoom(dst, path.Base(to)); err != nil {
		return err
	}
	st.made++
	return unix.Linkat(src, path.Base(from), dst, path.Base(to), 0)
}

// makeRoom removes what is at base: two paths of a layer can lead to one place,
// through a link, and the later one wins.
func makeRoom(fd int, base string) error {
	s, err := statAt(fd, base)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case isDir(s):
		return removeTree(fd, base)
	}
	return unix.Unlinkat(fd, base, 0)
}

package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
)

// tree is what one layer's stream makes without the layers below it.
type tree struct {
	walker
	budget  entry.Budget
	targets bool // there are aufs's link targets

	last string // parent of the last entry; "" where it is not known
	dir  *Node
}

func newTree(limits entry.Limits) *tree {
	return &tree{walker: newWalker(newDir(implied), 0), budget: entry.Budget{Limits: limits}}
}

// apply puts an entry into the tree; f is what a regular file becomes.
func (t *tree) apply(h *tar.Header, f *Inode) error {
	t.left += stepsEach
	p, err := entry.Name(h.Name)
	if err != nil {
		return err
	}
	if err := entry.CheckOwner(h); err != nil {
		return err
	}
	if p == "." {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("root of the layer is not a directory: %w", errs.Invalid)
		}
		return t.list(t.root, h)
	}
	aufs, target := entry.OfAufs(p, h)
	t.targets = t.targets || target
	if aufs && !target {
		return nil
	}
	dir, err := t.parent(p)
	if err != nil {
		return err
	}
	base := path.Base(p)
	if strings.HasPrefix(base, entry.WhiteoutPrefix) {
		return t.whiteout(dir, p)
	}
	if err := checkName(base); err != nil {
		return err
	}
	if old := dir.Kids[base]; old != nil && old.kind == link {
		delete(dir.Kids, base)
	}
	return t.put(dir, p, h, f)
}

func (t *tree) put(dir *Node, p string, h *tar.Header, f *Inode) error {
	base := path.Base(p)
	switch h.Typeflag {
	case tar.TypeDir:
		return t.directory(dir, p, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := f.setAttributes(h); err != nil {
			return err
		}
		t.replace(dir, base, &Node{Inode: f})
		return nil
	case tar.TypeSymlink:
		return t.symlink(dir, base, h)
	case tar.TypeLink:
		return t.link(dir, p, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return t.device(dir, p, h)
	}
	return fmt.Errorf("entry type %q: %w", h.Typeflag, errs.Unsupported)
}

func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("name %.60q… of %d bytes: %w: %w", name, len(name), unix.ENAMETOOLONG, errs.Invalid)
	}
	return nil
}

// replace puts n at dir's name. Where something was, paths may now lead elsewhere.
func (t *tree) replace(dir *Node, name string, n *Node) {
	if dir.Kids[name] != nil {
		t.dir = nil
	}
	dir.Kids[name] = n
}

// list gives a directory the entry's attributes: it is no longer implied.
func (t *tree) list(d *Node, h *tar.Header) error {
	d.kind = listed
	return d.setAttributes(h)
}

// directory makes or updates a directory. One that replaces something else of
// this layer hides what layers below have under its name.
func (t *tree) directory(dir *Node, p string, h *tar.Header) error {
	base := path.Base(p)
	d := dir.Kids[base]
	if !d.IsDir() {
		replaces := d != nil
		d = newDir(listed)
		d.opaque = replaces
		t.replace(dir, base, d)
	}
	if err := t.list(d, h); err != nil {
		return err
	}
	return t.budget.Note(p)
}

func (t *tree) symlink(dir *Node, base string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) >= unix.PathMax || strings.ContainsRune(h.Linkname, 0) {
		return fmt.Errorf("symbolic link to %.200q: %w", h.Linkname, errs.Invalid)
	}
	n := &Inode{Mode: unix.S_IFLNK | 0o777, Target: h.Linkname, Size: int64(len(h.Linkname))}
	n.setOwner(h)
	t.replace(dir, base, &Node{Inode: n})
	return nil
}

// link makes a hard link, or notes it where the target is not of this layer.
func (t *tree) link(dir *Node, p string, h *tar.Header) error {
	target, err := entry.Name(h.Linkname)
	if err != nil {
		return err
	}
	if target == p {
		return fmt.Errorf("hard link %.200q to itself: %w", p, errs.Invalid)
	}
	if dir.Kids[path.Base(p)] != nil {
		delete(dir.Kids, path.Base(p))
		t.dir = nil
		if dir, err = t.parent(p); err != nil {
			return err
		}
	}
	n := &Node{kind: link, below: target}
	at, err := t.lookup(path.Dir(target)) // not there: of the layers below
	if errors.Is(err, errFar) {
		return err
	}
	if len(at) > 0 {
		switch old := at[len(at)-1].Kids[path.Base(target)]; {
		case target == "." || old.IsDir():
			return fmt.Errorf("hard link to the directory %.200q: %w", target, errs.Invalid)
		case old != nil && old.kind == link:
			n.below = old.below
		case old != nil && old.kind != whiteout:
			dir.Kids[path.Base(p)] = &Node{Inode: old.Inode}
			return nil
		}
	}
	dir.Kids[path.Base(p)] = n
	return t.budget.Note(p, target)
}

// device makes a device or FIFO. A character device 0/0 is overlay's whiteout,
// and is one here too.
func (t *tree) device(dir *Node, p string, h *tar.Header) error {
	if err := entry.CheckDevice(h); err != nil {
		return err
	}
	n := &Inode{Mode: unix.S_IFIFO}
	switch h.Typeflag {
	case tar.TypeChar:
		n.Mode = unix.S_IFCHR
	case tar.TypeBlock:
		n.Mode = unix.S_IFBLK
	}
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		t.replace(dir, path.Base(p), &Node{kind: whiteout})
		return t.noteWhiteout(dir, p)
	}
	if h.Typeflag != tar.TypeFifo {
		n.Rdev = deviceNumber(uint32(h.Devmajor), uint32(h.Devminor))
	}
	n.Mode |= uint32(h.Mode & 0o7777)
	n.setOwner(h)
	t.replace(dir, path.Base(p), &Node{Inode: n})
	return nil
}

// deviceNumber is the kernel's new_encode_dev.
func deviceNumber(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// whiteout hides a name, or all names of a directory, of the layers below. What
// this layer itself has under the name stays, in whatever order the stream lists
// the two.
func (t *tree) whiteout(dir *Node, p string) error {
	if path.Base(p) == entry.WhiteoutOpaque {
		dir.opaque = true
		return nil
	}
	hidden, err := entry.Hidden(p)
	if err != nil || hidden == "" {
		return err
	}
	old := dir.Kids[hidden]
	if old == nil {
		if err := checkName(hidden); err != nil {
			return err
		}
		dir.Kids[hidden] = &Node{kind: whiteout}
		return t.noteWhiteout(dir, p)
	}
	if old.IsDir() { // the directory below is gone, and its owner with it
		old.opaque, old.kind = true, listed
	}
	return nil
}

// noteWhiteout counts a directory that holds whiteouts.
func (t *tree) noteWhiteout(dir *Node, p string) error {
	if dir.noted {
		return nil
	}
	dir.noted = true
	return t.budget.Note(path.Dir(p))
}

// dropTargets removes aufs's link targets; the links stay.
func (t *tree) dropTargets() {
	if t.targets {
		delete(t.root.Kids, entry.LinkTargets)
	}
}

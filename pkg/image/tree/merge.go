package tree

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// maxNodes bounds what Compose keeps in memory, some 200 bytes each.
const maxNodes = 2 << 20

// Compose applies layers in order, the lowest first, and returns the root; index is asked for the encoded
// index of each. The error is of kind Invalid where the layers cannot
// be applied, and of kind Unsupported where they have too many files.
func Compose(layers int, index func(n int) ([]byte, error)) (*Node, error) {
	root := newDir(listed)
	nodes := int64(0)
	for n := range layers {
		b, err := index(n)
		if err != nil {
			return nil, err
		}
		x, err := decode(b, 2*uint32(n))
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
		if nodes += x.Inodes; nodes > maxNodes {
			return nil, fmt.Errorf("more than %d files in all layers: %w", maxNodes, errs.Unsupported)
		}
		if err := layer(root, x); err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
	}
	return root, nil
}

// merger puts the tree of a layer over what is below.
type merger struct {
	walker
	targets map[*Node]*Inode // of the layer's hard links to files below
}

func layer(root *Node, own *Index) error {
	m := merger{walker: newWalker(root, own.Inodes), targets: map[*Node]*Inode{}}
	if err := m.resolve(".", own.root); err != nil {
		return err
	}
	return m.dir([]*Node{root}, own.root)
}

// resolve finds the targets of hard links while all that is below is there.
func (m *merger) resolve(p string, own *Node) error {
	for name, kid := range own.Kids {
		switch {
		case kid.IsDir():
			if err := m.resolve(path.Join(p, name), kid); err != nil {
				return err
			}
		case kid.kind == link:
			at, err := m.lookup(path.Dir(kid.below))
			if err != nil {
				return fmt.Errorf("hard link %.200q: target %.200q: %w: %w", path.Join(p, name), kid.below, err, errs.Invalid)
			}
			target := at[len(at)-1].Kids[path.Base(kid.below)]
			if target == nil || target.IsDir() {
				return fmt.Errorf("hard link %.200q: target %.200q is no file of the layers below: %w", path.Join(p, name), kid.below, errs.Invalid)
			}
			m.targets[kid] = target.Inode
		}
	}
	return nil
}

// dir puts a directory of the layer over the last one of at, whose path from the
// root at is.
func (m *merger) dir(at []*Node, own *Node) error {
	if len(at) > maxLevels {
		return fmt.Errorf("deeper than %d: %w: %w", maxLevels, unix.ELOOP, errs.Invalid)
	}
	to := at[len(at)-1]
	if own.kind == listed {
		to.Inode = own.Inode
	}
	if own.opaque {
		clear(to.Kids)
	}
	for name, kid := range own.Kids {
		if kid.kind == whiteout {
			delete(to.Kids, name)
		}
	}
	for _, name := range own.Names() {
		switch kid := own.Kids[name]; {
		case kid.IsDir():
			if err := m.join(at, name, kid); err != nil {
				return fmt.Errorf("directory %.200q: %w", name, err)
			}
		case kid.kind == whiteout:
		case kid.kind == link:
			to.Kids[name] = &Node{Inode: m.targets[kid]}
		default:
			to.Kids[name] = &Node{Inode: kid.Inode}
		}
	}
	return nil
}

// join puts a directory of the layer over what is at its name. A directory that
// the layer only implies leads through a symbolic link there to the directory
// that the link leads to, as applying the stream would; all else gives way.
func (m *merger) join(at []*Node, name string, own *Node) error {
	to := at[len(at)-1]
	old := to.Kids[name]
	if own.kind == implied && old.isSymlink() {
		end, err := m.walk(at, name, find)
		if err == nil {
			return m.dir(end, own)
		}
		if errors.Is(err, errFar) {
			return err
		}
	}
	if !old.IsDir() {
		old = &Node{Inode: own.Inode, Kids: map[string]*Node{}}
		to.Kids[name] = old
	}
	return m.dir(append(at[:len(at):len(at)], old), own)
}

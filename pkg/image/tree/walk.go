package tree

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
)

// parent returns the directory that holds the last component of p, which it
// makes if the stream has not.
func (t *tree) parent(p string) (*Node, error) {
	dir := path.Dir(p)
	if t.dir != nil && t.last == dir {
		return t.dir, nil
	}
	at, err := t.walk([]*Node{t.root}, dir, t.step)
	if err != nil {
		return nil, fmt.Errorf("directory %.200q: %w", dir, err)
	}
	t.last, t.dir = dir, at[len(at)-1]
	return t.dir, nil
}

// step returns what dir has as c: a directory, made if need be, or a symbolic
// link.
func (t *tree) step(dir *Node, c, full string) (*Node, error) {
	n := dir.Kids[c]
	switch {
	case n.IsDir() || n.isSymlink():
		return n, nil
	case n == nil || n.kind == link:
		if err := t.budget.Note(full); err != nil {
			return nil, err
		}
		n = newDir(implied)
	case n.kind == whiteout: // it hides the directory below: this one is new
		n = newDir(listed)
		n.opaque = true
	default:
		return nil, fmt.Errorf("%.200q: %w: %w", c, unix.ENOTDIR, errs.Invalid)
	}
	if err := checkName(c); err != nil {
		return nil, err
	}
	dir.Kids[c] = n
	return n, t.budget.Entry()
}

// stepsBefore and stepsEach say how many steps of paths are gone before the first
// file, and for each file: streams that lead through long symbolic links again and
// again would take hours.
const stepsBefore, stepsEach = 1 << 20, 256

// errFar says that a walk was the last that was allowed.
var errFar = fmt.Errorf("paths lead through too many symbolic links: %w", errs.Invalid)

// walker goes along paths in the tree of root.
type walker struct {
	root *Node
	left int64 // steps
}

func newWalker(root *Node, files int64) walker {
	return walker{root: root, left: stepsBefore + stepsEach*files}
}

// lookup returns the directories from the root to the one that p leads to. The
// error is errFar, or says that p leads to none.
func (w *walker) lookup(p string) ([]*Node, error) { return w.walk([]*Node{w.root}, p, find) }

func find(dir *Node, c, _ string) (*Node, error) {
	if n := dir.Kids[c]; n.IsDir() || n.isSymlink() {
		return n, nil
	}
	return nil, unix.ENOENT
}

// walk goes from the last directory of at along p. Symbolic links are followed
// inside the root, ".." goes back to where the walk came from, and step gives the
// rest. It returns the directories from the root to where it ends.
func (w *walker) walk(at []*Node, p string, step func(dir *Node, c, full string) (*Node, error)) ([]*Node, error) {
	at = at[:len(at):len(at)]
	rest := strings.Split(p, "/")
	for links := 0; len(rest) > 0; {
		if w.left--; w.left < 0 {
			return nil, errFar
		}
		c := rest[0]
		rest = rest[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			if len(at) > 1 {
				at = at[: len(at)-1 : len(at)-1]
			}
			continue
		}
		n, err := step(at[len(at)-1], c, p)
		if err != nil {
			return nil, err
		}
		if n.IsDir() {
			at = append(at, n)
			continue
		}
		if links++; links > entry.MaxSymlinks {
			return nil, unix.ELOOP
		}
		if path.IsAbs(n.Target) {
			at = []*Node{w.root}
		}
		rest = append(strings.Split(n.Target, "/"), rest...)
	}
	return at, nil
}

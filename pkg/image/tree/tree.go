// Package tree knows what the tar streams of layers make, each alone and all
// together, without making a file of it.
//
// Scan reads a layer's stream into an Index, which says what the layer has and
// where in the stream the content of its files lies. Compose applies the indexes of
// an image's layers in order, exactly as applying the streams in order would:
// whiteouts hide what they name, directories that a layer only implies keep their
// owner, hard links find files of layers below, and paths lead through symbolic
// links of layers below.
//
// Streams are attackers' data: names, sizes, counts and attributes are bounded and
// checked by package entry's rules, and nothing that a stream names is ever opened.
// All but Index.Spill is pure.
package tree

import (
	"slices"

	"golang.org/x/sys/unix"
)

// blockSize is tar's.
const blockSize = 512

const maxName = 255

// Inode is a file, whatever its names.
type Inode struct {
	Mode     uint32 // with its type
	UID, GID uint32
	Sec      int64 // of the time
	Nsec     uint32
	Rdev     uint32 // as the kernel's new_encode_dev
	Size     int64
	Data     Source   // where the content of a regular file begins
	Extents  []Extent // of a sparse file that is shown from its tar; else nil
	Target   string   // of a symbolic link
	Xattrs   []Xattr  // sorted by key
}

// Source is a place in one of the files of an image's layers.
type Source struct {
	Device uint32 // twice the layer's number, and one more for its spill
	Offset int64  // a multiple of 512
}

// Extent is a piece of a sparse file: Size bytes at Offset in the file. The pieces
// of a file lie one after another in the tar.
type Extent struct {
	Offset, Size int64
}

// Xattr is an extended attribute.
type Xattr struct{ Key, Value string }

// Is reports whether the inode is of a kind, such as unix.S_IFREG.
func (i *Inode) Is(kind uint32) bool { return i.Mode&unix.S_IFMT == kind }

// kind is what a node of a layer's own tree says of the layers below.
type kind uint8

const (
	listed   kind = iota // replaces, or joins a directory with other attributes
	implied              // a directory that takes its attributes from below
	whiteout             // nothing is there
	link                 // a hard link to a file of the layers below
)

// Node is a name in a tree. Equal Inodes are hard links.
type Node struct {
	*Inode
	Kids map[string]*Node // of a directory

	kind   kind
	opaque bool   // nothing below shows in this directory
	noted  bool   // whiteouts in it have been counted
	below  string // of a link: the path that it leads to
}

// newDir returns a directory as it is where nothing says how it is.
func newDir(k kind) *Node {
	return &Node{Inode: &Inode{Mode: unix.S_IFDIR | 0o755}, Kids: map[string]*Node{}, kind: k}
}

// IsDir reports whether n is there and a directory.
func (n *Node) IsDir() bool { return n != nil && n.Kids != nil }

// isSymlink reports whether n is there and a symbolic link.
func (n *Node) isSymlink() bool { return n != nil && n.Inode != nil && n.Is(unix.S_IFLNK) }

// Names returns the names in a directory, in order of their bytes.
func (n *Node) Names() []string {
	names := make([]string, 0, len(n.Kids)+2)
	for name := range n.Kids {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

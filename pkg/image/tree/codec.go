package tree

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"golang.org/x/sys/unix"
)

// An encoded index is this line, the numbers of the index, its tree, each node
// before what is in it, and a checksum. Numbers are varints.
const indexMagic = "berth erofs index 1\n"

// ErrIndex says that bytes are no index: one is to be made again from the tar.
var ErrIndex = errors.New("damaged index of a layer")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The forms of a node: those of kind, and
const (
	formFile   = 16 // a file
	formAgain  = 17 // another name of a file
	formOpaque = 32 // is added to that of a directory that hides what is below
)

// Encode returns the index as bytes.
func (x *Index) Encode() []byte {
	e := encoder{numbers: map[*Inode]uint64{}, b: []byte(indexMagic)}
	for _, n := range []int64{x.Bytes, x.Inodes, x.spill} {
		e.uint(uint64(n))
	}
	e.node("", x.root)
	return binary.LittleEndian.AppendUint32(e.b, crc32.Checksum(e.b, castagnoli))
}

type encoder struct {
	b       []byte
	numbers map[*Inode]uint64 // of files that may have more names
}

func (e *encoder) uint(n uint64) { e.b = binary.AppendUvarint(e.b, n) }

func (e *encoder) text(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) node(name string, n *Node) {
	switch {
	case n.IsDir():
		form := uint64(n.kind)
		if n.opaque {
			form |= formOpaque
		}
		e.uint(form)
		e.text(name)
		e.inode(n.Inode)
		e.uint(uint64(len(n.Kids)))
		for _, k := range n.Names() {
			e.node(k, n.Kids[k])
		}
	case n.kind == whiteout:
		e.uint(uint64(whiteout))
		e.text(name)
	case n.kind == link:
		e.uint(uint64(link))
		e.text(name)
		e.text(n.below)
	default:
		number, again := e.numbers[n.Inode]
		if again {
			e.uint(formAgain)
			e.text(name)
			e.uint(number)
			return
		}
		e.numbers[n.Inode] = uint64(len(e.numbers))
		e.uint(formFile)
		e.text(name)
		e.inode(n.Inode)
	}
}

func (e *encoder) inode(i *Inode) {
	e.uint(uint64(i.Mode))
	e.uint(uint64(i.UID))
	e.uint(uint64(i.GID))
	e.b = binary.AppendVarint(e.b, i.Sec)
	e.uint(uint64(i.Nsec))
	e.uint(uint64(len(i.Xattrs)))
	for _, x := range i.Xattrs {
		e.text(x.Key)
		e.text(x.Value)
	}
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.uint(uint64(i.Size))
		e.uint(uint64(i.Data.Device))
		e.uint(uint64(i.Data.Offset))
		if i.Extents == nil {
			e.uint(0)
			return
		}
		e.uint(uint64(len(i.Extents)) + 1)
		for _, x := range i.Extents {
			e.uint(uint64(x.Offset))
			e.uint(uint64(x.Size))
		}
	case unix.S_IFLNK:
		e.text(i.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.uint(uint64(i.Rdev))
	}
}

// Valid reports whether b is an encoded index, by its checksum.
func Valid(b []byte) bool {
	n := len(b) - 4
	return n >= len(indexMagic) && string(b[:len(indexMagic)]) == indexMagic &&
		crc32.Checksum(b[:n], castagnoli) == binary.LittleEndian.Uint32(b[n:])
}

// decode returns the index that Encode has made bytes of, with the layer's tar as
// the given device.
func decode(b []byte, device uint32) (x *Index, err error) {
	if !Valid(b) {
		return nil, ErrIndex
	}
	d := decoder{b: b[len(indexMagic) : len(b)-4], device: device}
	x = &Index{Bytes: int64(d.uint()), Inodes: int64(d.uint()), spill: int64(d.uint())}
	_, x.root = d.node(0)
	if d.failed || len(d.b) > 0 || !x.root.IsDir() {
		return nil, ErrIndex
	}
	return x, nil
}

// decoder reads until it fails, and then reads nothing.
type decoder struct {
	b      []byte
	device uint32
	files  []*Inode
	failed bool
}

func (d *decoder) fail() { d.b, d.failed = nil, true }

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many things of one byte at least follow.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.count()
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

// maxLevels is more than paths have components.
const maxLevels = unix.PathMax

func (d *decoder) node(level int) (string, *Node) {
	form := d.uint()
	opaque := form&formOpaque != 0
	name := d.text()
	if d.failed || level > maxLevels {
		d.fail()
		return "", nil
	}
	switch form &^ formOpaque {
	case uint64(listed), uint64(implied):
		n := &Node{kind: kind(form &^ formOpaque), opaque: opaque, Inode: d.inode()}
		count := d.count()
		n.Kids = make(map[string]*Node, count)
		for range count {
			k, kid := d.node(level + 1)
			if d.failed {
				return "", nil
			}
			n.Kids[k] = kid
		}
		return name, n
	case uint64(whiteout):
		return name, &Node{kind: whiteout}
	case uint64(link):
		return name, &Node{kind: link, below: d.text()}
	case formFile:
		n := &Node{Inode: d.inode()}
		d.files = append(d.files, n.Inode)
		return name, n
	case formAgain:
		if i := d.uint(); i < uint64(len(d.files)) {
			return name, &Node{Inode: d.files[i]}
		}
	}
	d.fail()
	return "", nil
}

func (d *decoder) inode() *Inode {
	i := &Inode{Mode: uint32(d.uint()), UID: uint32(d.uint()), GID: uint32(d.uint()), Sec: d.int(), Nsec: uint32(d.uint())}
	for range d.count() {
		i.Xattrs = append(i.Xattrs, Xattr{d.text(), d.text()})
	}
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		i.Size, i.Data = int64(d.uint()), Source{d.device + uint32(d.uint()), int64(d.uint())}
		if n := d.count(); n > 0 {
			i.Extents = make([]Extent, 0, n-1)
			for range n - 1 {
				i.Extents = append(i.Extents, Extent{int64(d.uint()), int64(d.uint())})
			}
		}
	case unix.S_IFLNK:
		i.Target = d.text()
		i.Size = int64(len(i.Target))
	case unix.S_IFCHR, unix.S_IFBLK:
		i.Rdev = uint32(d.uint())
	}
	return i
}

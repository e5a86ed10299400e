package erofs

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/tree"
)

const direntSize = 12

// packed is a directory's names, block by block. The names of all blocks are in
// order.
type packed [][]string

// packDir divides the names of a directory among blocks.
func packDir(d *tree.Node) packed {
	names := append(d.Names(), ".", "..")
	slices.Sort(names)
	var blocks packed
	used, first := 0, 0
	for n, name := range names {
		if need := direntSize + len(name); used+need > blockSize {
			blocks, used, first = append(blocks, names[first:n]), need, n
		} else {
			used += need
		}
	}
	return append(blocks, names[first:])
}

// size is that of the directory: the last block is as long as its names are.
func (b packed) size() int64 {
	size := int64(len(b)-1) * blockSize
	for _, name := range b[len(b)-1] {
		size += direntSize + int64(len(name))
	}
	return size
}

// dirContent returns the directory's bytes.
func (l *layout) dirContent(p *placed) []byte {
	out := make([]byte, 0, p.size)
	for n, names := range packDir(p.dir) {
		if n > 0 {
			out = append(out, make([]byte, n*blockSize-len(out))...)
		}
		offset := direntSize * len(names)
		for _, name := range names {
			to := l.entry(p, name)
			out = binary.LittleEndian.AppendUint64(out, to.nid)
			out = binary.LittleEndian.AppendUint16(out, uint16(offset))
			out = append(out, fileType(to.Mode), 0)
			offset += len(name)
		}
		for _, name := range names {
			out = append(out, name...)
		}
	}
	return out
}

// entry returns what a name of the directory p leads to.
func (l *layout) entry(p *placed, name string) *placed {
	switch name {
	case ".":
		return p
	case "..":
		return p.parent
	}
	return l.of[p.dir.Kids[name].Inode]
}

func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	}
	return 7 // a symbolic link
}

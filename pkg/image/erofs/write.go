package erofs

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/tree"
)

const (
	superMagic      = 0xE0F5E1E2
	incompatChunks  = 4
	incompatDevices = 8
	noBlock         = 0xffffffff // of a hole

	formatExtended = 1
	formatInline   = 2 << 1
	formatChunks   = 4 << 1

	xattrHeader = 12
	xattrEntry  = 4
)

// Write writes the image of a tree and returns what its devices are, in order. size gives
// the size of a device in bytes; id, of 16 bytes, names the file system. The same
// layers make the same image.
func Write(w io.Writer, root *tree.Node, id [16]byte, size func(Device) (int64, error)) ([]Device, error) {
	l, err := plan(root, size)
	if err != nil {
		return nil, err
	}
	out := &writer{w: bufio.NewWriterSize(w, 1<<20), layout: l}
	out.super(l.inodes[0].nid, id)
	for _, p := range l.inodes {
		out.pad(l.metaBlock*blockSize + p.at)
		out.inode(p)
	}
	out.pad(l.dataBlock * blockSize)
	for _, p := range l.inodes {
		if p.blocks == 0 {
			continue
		}
		content := l.content(p)
		out.bytes(content[:min(p.blocks*blockSize, int64(len(content)))])
		out.pad(align(out.offset, blockSize))
	}
	if out.err == nil {
		out.err = out.w.Flush()
	}
	return l.devices, out.err
}

// writer writes forward and remembers the first error.
type writer struct {
	*layout
	w      *bufio.Writer
	offset int64
	err    error
}

func (w *writer) bytes(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
		w.offset += int64(len(b))
	}
}

var zeros [blockSize]byte

func (w *writer) pad(to int64) {
	for w.err == nil && w.offset < to {
		w.bytes(zeros[:min(int64(len(zeros)), to-w.offset)])
	}
}

// super writes all that is before the inodes.
func (w *writer) super(root uint64, id [16]byte) {
	b := make([]byte, superSize)
	le := binary.LittleEndian
	le.PutUint32(b, superMagic)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(root))
	le.PutUint64(b[16:], uint64(len(w.inodes)))
	le.PutUint64(b[24:], uint64(w.sec))
	le.PutUint32(b[32:], w.nsec)
	le.PutUint32(b[36:], uint32(w.blocks))
	le.PutUint32(b[40:], uint32(w.metaBlock))
	copy(b[48:], id[:])
	le.PutUint32(b[80:], incompatChunks|incompatDevices)
	le.PutUint16(b[86:], uint16(len(w.devices)))
	le.PutUint16(b[88:], (superOffset+superSize)/slotSize)
	w.pad(superOffset)
	w.bytes(b)
	for n, d := range w.devices {
		slot := make([]byte, slotSize)
		le.PutUint32(slot[64:], uint32(w.sizes[n]))
		le.PutUint32(slot[68:], uint32(w.starts[d.number()]))
		w.bytes(slot)
	}
}

func (w *writer) inode(p *placed) {
	le := binary.LittleEndian
	format, value := w.format(p)
	attributes := 0
	if n := xattrSize(p.Xattrs); n > 0 {
		attributes = int(n-xattrHeader)/4 + 1
	}
	b := make([]byte, extendedInode)
	le.PutUint16(b[2:], uint16(attributes))
	le.PutUint16(b[4:], uint16(p.Mode))
	le.PutUint32(b[16:], value)
	le.PutUint32(b[20:], p.number)
	if w.compact(p) {
		le.PutUint16(b, format)
		le.PutUint16(b[6:], uint16(p.links))
		le.PutUint32(b[8:], uint32(p.size))
		le.PutUint16(b[24:], uint16(p.UID))
		le.PutUint16(b[26:], uint16(p.GID))
		b = b[:compactInode]
	} else {
		le.PutUint16(b, format|formatExtended)
		le.PutUint64(b[8:], uint64(p.size))
		le.PutUint32(b[24:], p.UID)
		le.PutUint32(b[28:], p.GID)
		le.PutUint64(b[32:], uint64(p.Sec))
		le.PutUint32(b[40:], p.Nsec)
		le.PutUint32(b[44:], p.links)
	}
	w.bytes(b)
	w.xattrs(p.Xattrs)
	switch {
	case p.Extents != nil:
		w.chunks(p)
	case p.inline > 0:
		content := w.content(p)
		w.bytes(content[int64(len(content))-p.inline:])
	}
}

// format returns the form of an inode's content, and where it begins or what it
// is.
func (w *writer) format(p *placed) (format uint16, value uint32) {
	switch p.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if p.Extents != nil {
			return formatChunks, uint32(p.chunks - blockBits)
		}
		if p.size > 0 {
			value = uint32(w.starts[p.Data.Device] + p.Data.Offset/blockSize)
		}
		return 0, value
	case unix.S_IFDIR, unix.S_IFLNK:
		if p.inline > 0 {
			format = formatInline
		}
		return format, uint32(w.dataBlock + p.first)
	}
	return 0, p.Rdev
}

// chunks writes the first block of each chunk of a sparse file.
func (w *writer) chunks(p *placed) {
	next, block := int64(0), w.starts[p.Data.Device]+p.Data.Offset/blockSize
	put := func(b int64) { w.bytes(binary.LittleEndian.AppendUint32(nil, uint32(b))) }
	for _, e := range p.Extents {
		for ; next < e.Offset; next += 1 << p.chunks {
			put(noBlock)
		}
		for ; next < e.Offset+e.Size; next += 1 << p.chunks {
			put(block)
			block += 1 << (p.chunks - blockBits)
		}
	}
	for ; next < p.size; next += 1 << p.chunks {
		put(noBlock)
	}
}

// content is the content of a directory or a symbolic link.
func (l *layout) content(p *placed) []byte {
	if p.dir != nil {
		return l.dirContent(p)
	}
	return []byte(p.Target)
}

// The prefixes that are not written, by their numbers.
var xattrPrefixes = []struct {
	prefix string
	index  byte
}{{"user.", 1}, {"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"security.", 6}}

// shortened returns the number of a key's prefix and what follows it.
func shortened(key string) (byte, string) {
	for _, p := range xattrPrefixes {
		if rest, ok := strings.CutPrefix(key, p.prefix); ok {
			return p.index, rest
		}
	}
	return 0, key
}

// xattrSize is what the attributes take behind the inode.
func xattrSize(all []tree.Xattr) int64 {
	if len(all) == 0 {
		return 0
	}
	size := int64(xattrHeader)
	for _, x := range all {
		_, rest := shortened(x.Key)
		size += align(int64(xattrEntry+len(rest)+len(x.Value)), 4)
	}
	return size
}

func (w *writer) xattrs(all []tree.Xattr) {
	if len(all) == 0 {
		return
	}
	b := make([]byte, xattrHeader, xattrSize(all))
	for _, x := range all {
		index, rest := shortened(x.Key)
		b = append(b, byte(len(rest)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(x.Value)))
		b = append(b, rest...)
		b = append(b, x.Value...)
		b = append(b, zeros[:align(int64(len(b)), 4)-int64(len(b))]...)
	}
	w.bytes(b)
}

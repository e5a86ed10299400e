package erofs

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/tree"
)

// On disk: the super block at 1024, the device slots behind it, then inodes, each
// at a multiple of 32 bytes with its attributes, and what is left of its content
// or its chunks, directly behind; then the blocks of directories and long links.
const (
	superOffset = 1024
	superSize   = 128
	slotSize    = 128
	slotInode   = 32 // the unit of inode numbers

	compactInode  = 32
	extendedInode = 64
)

// Device says which file an image's next device is: one of a layer's two.
type Device struct {
	Layer int  `json:"layer"` // its number, from the lowest
	Spill bool `json:"spill,omitempty"`
}

// placed is an inode and where it goes.
type placed struct {
	*tree.Inode
	size          int64 // of the content: directories have one here only
	links, number uint32
	dir           *tree.Node // of a directory
	parent        *placed
	at            int64 // from where inodes begin
	nid           uint64
	head          int64 // of the inode and its attributes
	blocks        int64 // whole blocks of content in the image
	first         int64 // the first of them, from where they begin
	inline        int64 // bytes of content behind the inode
	chunks        int   // their size as a power of two, for sparse files
}

// layout is where everything goes.
type layout struct {
	inodes  []*placed // in the order of their places
	of      map[*tree.Inode]*placed
	devices []Device
	starts  map[uint32]int64 // first block of a device, by its number in source
	sizes   []int64          // of devices, in blocks
	sec     int64            // the time that most inodes have
	nsec    uint32

	metaBlock, dataBlock, blocks int64 // where inodes and content begin, and the image ends
}

// plan lays out the image of a tree. size gives a device's size in bytes.
func plan(root *tree.Node, size func(Device) (int64, error)) (*layout, error) {
	l := &layout{starts: map[uint32]int64{}, of: map[*tree.Inode]*placed{}}
	c := collector{layout: l, times: map[[2]int64]int{}, devices: map[uint32]bool{}}
	c.dir(root)
	c.mostTimes()
	l.place()
	for number := range c.highest + 1 {
		if !c.devices[number] {
			continue
		}
		d := Device{Layer: int(number / 2), Spill: number%2 == 1}
		bytes, err := size(d)
		if err != nil {
			return nil, err
		}
		l.devices, l.sizes = append(l.devices, d), append(l.sizes, align(bytes, blockSize)/blockSize)
	}
	return l, l.finish()
}

// finish turns relative places into addresses.
func (l *layout) finish() error {
	l.metaBlock = align(superOffset+superSize+slotSize*int64(len(l.devices)), blockSize) / blockSize
	last := l.inodes[len(l.inodes)-1]
	l.dataBlock = l.metaBlock + align(last.at+last.length(), blockSize)/blockSize
	l.blocks = l.dataBlock
	for _, p := range l.inodes {
		l.blocks += p.blocks
	}
	next := l.blocks
	for n, d := range l.devices {
		l.starts[d.number()] = next
		next += l.sizes[n]
	}
	if next >= math.MaxUint32 || len(l.devices) > math.MaxUint16 {
		return fmt.Errorf("layers of %d bytes, of %d at most: %w", next*blockSize, int64(math.MaxUint32)*blockSize, errs.Unsupported)
	}
	return nil
}

func (d Device) number() uint32 {
	n := 2 * uint32(d.Layer)
	if d.Spill {
		n++
	}
	return n
}

// collector lists the inodes of a tree: those of a directory together.
type collector struct {
	*layout
	times   map[[2]int64]int
	devices map[uint32]bool
	highest uint32
}

// dir lists what is in a directory, then what is in those in it. The first call is
// for the root.
func (c *collector) dir(d *tree.Node) {
	self := c.of[d.Inode]
	if self == nil {
		self = c.add(d)
		self.parent = self
	}
	self.links = 2
	names := d.Names()
	for _, name := range names {
		kid := d.Kids[name]
		p := c.of[kid.Inode]
		if p == nil {
			p = c.add(kid)
		}
		if p.links++; kid.IsDir() {
			self.links++
			p.parent = self
		}
	}
	for _, name := range names {
		if kid := d.Kids[name]; kid.IsDir() {
			c.dir(kid)
		}
	}
}

func (c *collector) add(n *tree.Node) *placed {
	p := &placed{Inode: n.Inode, size: n.Size, number: uint32(len(c.inodes) + 1)}
	if n.IsDir() {
		p.dir = n
		p.size = packDir(n).size()
	}
	c.inodes, c.of[n.Inode] = append(c.inodes, p), p
	c.times[[2]int64{n.Sec, int64(n.Nsec)}]++
	if n.Is(unix.S_IFREG) && n.Size > 0 && (n.Extents == nil || len(n.Extents) > 0) {
		c.devices[n.Data.Device] = true
		c.highest = max(c.highest, n.Data.Device)
	}
	return p
}

// mostTimes finds the time that small inodes have, the earliest if there are
// several.
func (c *collector) mostTimes() {
	best := 0
	for t, n := range c.times {
		if n > best || n == best && (t[0] < c.sec || t[0] == c.sec && t[1] < int64(c.nsec)) {
			best, c.sec, c.nsec = n, t[0], uint32(t[1])
		}
	}
}

// compact reports whether the small form of an inode holds all that i has.
func (l *layout) compact(i *placed) bool {
	return i.Sec == l.sec && i.Nsec == l.nsec && i.UID <= math.MaxUint16 && i.GID <= math.MaxUint16 &&
		i.links <= math.MaxUint16 && i.size <= math.MaxUint32
}

// place gives each inode its place.
func (l *layout) place() {
	at, block := int64(slotInode), int64(0) // number 0 is none
	for _, p := range l.inodes {
		p.head = compactInode
		if !l.compact(p) {
			p.head = extendedInode
		}
		p.head += xattrSize(p.Xattrs)
		at = align(at, slotInode)
		switch {
		case p.Is(unix.S_IFDIR) || p.Is(unix.S_IFLNK):
			at = p.divide(at)
		case p.Extents != nil:
			p.chunks = tree.ChunkBits(p.Inode)
			p.inline = 4 * ((p.size + 1<<p.chunks - 1) >> p.chunks)
		}
		p.at, p.nid = at, uint64(at/slotInode)
		p.first, block = block, block+p.blocks
		at += p.length()
	}
}

// length is what the inode takes with all that is behind it.
func (p *placed) length() int64 { return p.head + p.inline }

// divide divides content between whole blocks and the place behind the inode,
// which must not cross into the next block, and returns where the inode goes.
func (p *placed) divide(at int64) int64 {
	p.blocks, p.inline = p.size/blockSize, p.size%blockSize
	if p.inline == 0 {
		return at
	}
	for _, try := range []int64{at, align(at, blockSize)} {
		if begin := (try + p.head) % blockSize; begin+p.inline <= blockSize {
			return try
		}
	}
	p.blocks, p.inline = p.blocks+1, 0
	return at
}

package stdio

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The states of the slot.
const (
	slotIdle    uint32 = iota
	slotWriting        // the log may hold a part of the batch, the FIFO all of it
	slotTaking         // the log holds the batch, the FIFO may still hold a part
)

// slotSize is a page; maxID is what fits of a container's id.
const (
	slotSize = 4096
	slotHead = 64
	maxID    = 128
)

// batch is one step of the pump, in the form that the next pump needs to finish
// it.
type batch struct {
	id     string
	stream int
	size   int       // bytes of the FIFO that make it up
	at     time.Time // of its records
	flush  bool
	inode  uint64 // of the log
	offset int64  // of the log before it
}

// slot keeps the batch in progress in shared memory, where it outlives the
// process.
type slot struct {
	mem []byte
}

func openSlot(path string) (*slot, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(slotSize); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &slot{mem: mem}, nil
}

func (s *slot) close() error { return unix.Munmap(s.mem) }

func (s *slot) word() *uint32 { return (*uint32)(unsafe.Pointer(&s.mem[0])) }

func (s *slot) state() uint32       { return atomic.LoadUint32(s.word()) }
func (s *slot) set(state uint32)    { atomic.StoreUint32(s.word(), state) }
func (s *slot) put(i int, v uint64) { binary.NativeEndian.PutUint64(s.mem[8*i:], v) }
func (s *slot) get(i int) uint64    { return binary.NativeEndian.Uint64(s.mem[8*i:]) }

// begin stores b and then says that it is being written.
func (s *slot) begin(b *batch) {
	flush := uint64(0)
	if b.flush {
		flush = 1
	}
	s.put(1, uint64(b.stream)|flush<<32)
	s.put(2, uint64(b.size))
	s.put(3, uint64(b.at.UnixNano()))
	s.put(4, b.inode)
	s.put(5, uint64(b.offset))
	s.put(6, uint64(len(b.id)))
	copy(s.mem[slotHead:slotHead+maxID], b.id)
	s.set(slotWriting)
}

// load returns the batch that begin stored.
func (s *slot) load() batch {
	n := min(s.get(6), maxID)
	return batch{
		id:     string(s.mem[slotHead : slotHead+n]),
		stream: int(uint32(s.get(1))),
		flush:  s.get(1)>>32 != 0,
		size:   int(s.get(2)),
		at:     time.Unix(0, int64(s.get(3))),
		inode:  s.get(4),
		offset: int64(s.get(5)),
	}
}

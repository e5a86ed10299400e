package vm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
)

// sector is the unit of access, and physical what a disk writes as a whole, or not,
// as disks do for ten years. One that tears pieces of 512 bytes is nothing that
// ext4 with checksums survives: a commit block of its journal of which only the
// first sector is new makes the file system one that cannot be mounted.
const (
	sector   = 512
	physical = 4096
)

// Disk is a disk with a volatile write cache that a power cut can be told to
// lose, which no cache mode of QEMU can: whatever QEMU has written is in the
// host's page cache, and survives QEMU. What the guest writes stays in this
// process's memory until the guest flushes; only then is it in the file. So
// PowerCut does to the file what a real disk may do by the rules, and nothing
// that it may not.
//
// A disk outlives the machines that it is plugged into, one after the other.
type Disk struct {
	mu              sync.Mutex
	file            *os.File
	size            int64
	pending         []write          // since the last flush, in order
	latest          map[int64][]byte // sector → its newest content in pending
	flushes, writes int              // that the guest has asked for
	trip            int              // see StopAt
	stopped         chan struct{}
}

type write struct {
	off  int64
	data []byte
}

// OpenDisk opens the disk image at path.
func OpenDisk(path string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Disk{file: f, size: info.Size() / sector * sector, latest: map[int64][]byte{}}, nil
}

// Close closes the image. What has not been flushed is lost.
func (d *Disk) Close() error { return d.file.Close() }

func (d *Disk) check(off, n int64) error {
	if off < 0 || n < 0 || off%sector != 0 || n%sector != 0 || off+n > d.size {
		return fmt.Errorf("disk of %d bytes: access of %d bytes at %d", d.size, n, off)
	}
	return nil
}

// read reads as the guest sees it: the cache, and the file behind it.
func (d *Disk) read(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	if _, err := d.file.ReadAt(p, off); err != nil {
		return err
	}
	for n := int64(0); n < int64(len(p)); n += sector {
		if data := d.latest[(off+n)/sector]; data != nil {
			copy(p[n:n+sector], data)
		}
	}
	return nil
}

// write takes p into the cache. p must not change any more.
func (d *Disk) write(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	d.writes++
	d.pending = append(d.pending, write{off, p})
	for n := int64(0); n < int64(len(p)); n += sector {
		d.latest[(off+n)/sector] = p[n : n+sector]
	}
	return nil
}

// flush makes all that was written before durable.
func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushes++
	return d.settle(func(int, int64) bool { return true })
}

// settle writes those sectors of the cache that keep chooses, in order, and drops
// the others.
func (d *Disk) settle(keep func(n int, sector int64) bool) error {
	for n, w := range d.pending {
		for at := int64(0); at < int64(len(w.data)); {
			end := at
			for end < int64(len(w.data)) && keep(n, (w.off+end)/sector) {
				end += sector
			}
			if end > at {
				if _, err := d.file.WriteAt(w.data[at:end], w.off+at); err != nil {
					return err
				}
			}
			at = end + sector // one that is not kept
		}
	}
	d.pending = nil
	clear(d.latest)
	return nil
}

// StopAt has the disk stop, as if the power went, at the moment when so many writes
// are in its cache: it answers nothing more, until the next machine. The channel
// is closed then. At most moments there are none, and a cut would lose nothing.
func (d *Disk) StopAt(writes int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trip, d.stopped = writes, make(chan struct{})
	return d.stopped
}

// dead reports whether the disk has stopped.
func (d *Disk) dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trip > 0 && len(d.pending) >= d.trip {
		d.trip = 0
		close(d.stopped)
	}
	return d.stopped != nil && d.trip == 0
}

// Cut says what a power cut has done.
type Cut struct {
	Model           string
	Writes, Flushes int // of the guest since the last cut
	Unflushed       int // writes of these
	Lost            int64
}

// String returns a line for people.
func (c Cut) String() string {
	return fmt.Sprintf("%d writes, %d flushes; of %d unflushed writes lost %d KiB (%s)", c.Writes, c.Flushes, c.Unflushed, c.Lost>>10, c.Model)
}

// PowerCut loses what a disk may lose: nothing that was flushed, and of the rest
// all of it, what came after some moment, or any of it, so that later writes are
// there and earlier ones are not, and some are torn. The machine must be dead.
func (d *Disk) PowerCut(r *rand.Rand) (Cut, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := Cut{Writes: d.writes, Flushes: d.flushes, Unflushed: len(d.pending)}
	d.writes, d.flushes = 0, 0
	d.trip, d.stopped = 0, nil
	kept := int64(0)
	for _, w := range d.pending {
		c.Lost += int64(len(w.data))
	}
	var keep func(int, int64) bool
	switch last := r.IntN(len(d.pending) + 1); r.IntN(3) {
	case 0:
		c.Model, keep = "all of them", func(int, int64) bool { return false }
	case 1:
		c.Model, keep = "the last of them", func(n int, _ int64) bool { return n < last }
	default:
		// A write is kept, lost or torn: seven of eight as a whole.
		share := r.Float64()
		c.Model = fmt.Sprintf("any of them, about %.0f %%", 100*(1-share))
		whole, torn := map[int]bool{}, map[int]bool{}
		pieces := map[[2]int64]bool{} // of torn writes
		for n := range d.pending {
			whole[n], torn[n] = r.Float64() < share, r.IntN(8) == 0
		}
		keep = func(n int, s int64) bool {
			if !torn[n] {
				return whole[n]
			}
			piece := [2]int64{int64(n), s * sector / physical}
			if _, ok := pieces[piece]; !ok {
				pieces[piece] = r.Float64() < share
			}
			return pieces[piece]
		}
	}
	counted := func(n int, s int64) bool {
		k := keep(n, s)
		if k {
			kept += sector
		}
		return k
	}
	err := d.settle(counted)
	c.Lost -= kept
	return c, err
}

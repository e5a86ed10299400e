package digester

import (
	"crypto/sha256"
	"runtime"
	"slices"
	"sync"
)

// step is how many bytes of a stream are hashed until others are looked for.
const step = 32 << 10

// job is a write of whole blocks.
type job struct {
	state [8]uint32
	data  []byte    // what is still to be hashed
	wake  chan bool // told once whoever waits: true to lead, false where all is hashed
}

// pool is where writers meet. At most GOMAXPROCS of them lead: each hashes its own
// bytes, and those of one other that waits.
type pool struct {
	mu      sync.Mutex
	waiting []*job // the next one first; somebody leads as long as there are any
	leaders int
	alone   int // leaders without another
}

// hash hashes all of j.
func (p *pool) hash(j *job) {
	if p.wait(j) && !<-j.wake {
		return
	}
	runtime.Gosched() // with all cores busy others are about to come
	var other *job
	for len(j.data) > 0 {
		if other == nil {
			other = p.next()
		}
		if other == nil {
			j.data = j.data[alone(j):]
			continue
		}
		n := both(j, other)
		j.data, other.data = j.data[n:], other.data[n:]
		if len(other.data) == 0 {
			p.done(other)
			other = nil
		}
	}
	p.leave(other)
}

// alone hashes a step of j and returns how many bytes it was.
func alone(j *job) int {
	n := min(len(j.data), step)
	one(j, n/sha256.BlockSize)
	return n
}

// both hashes a step of two.
func both(j, other *job) int {
	n := min(len(j.data), len(other.data), step)
	two(j, other, n/sha256.BlockSize)
	return n
}

// wait reports whether j waits; else it leads.
func (p *pool) wait(j *job) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = append(p.waiting, j)
	if !p.shortLocked() {
		return true
	}
	p.waiting = p.waiting[:len(p.waiting)-1]
	p.leaders++
	p.alone++
	return false
}

// shortLocked reports whether one of those who wait has to lead: two do whom
// nobody is about to take, or nobody is there.
func (p *pool) shortLocked() bool {
	return p.leaders == 0 || len(p.waiting) >= p.alone+2 && p.leaders < runtime.GOMAXPROCS(0)
}

// next takes one that waits along, if there is any.
func (p *pool) next() *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		return nil
	}
	p.alone--
	return p.popLocked()
}

func (p *pool) popLocked() *job {
	j := p.waiting[0]
	p.waiting[0] = nil
	p.waiting = p.waiting[1:]
	return j
}

// done tells one that was taken along that all of it is hashed.
func (p *pool) done(other *job) {
	p.mu.Lock()
	p.alone++
	p.mu.Unlock()
	other.wake <- false
}

// leave ends a leader, whose other, if it has one, is next.
func (p *pool) leave(other *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaders--
	if other == nil {
		p.alone--
	} else {
		p.waiting = slices.Insert(p.waiting, 0, other)
	}
	if len(p.waiting) > 0 && p.shortLocked() {
		p.leaders++
		p.alone++
		p.popLocked().wake <- true // its channel has room
	}
}

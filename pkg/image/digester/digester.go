// Package digester hashes content, two streams at a time where it can.
//
// A round of SHA-256 waits for the one before it, so a core that hashes one stream
// does nothing half of the time, and hashes two in little more time than one. No
// stream waits for another to come: a writer begins alone, looks for others every
// few KiB, and takes one along. Who comes meanwhile waits until it is taken, or
// begins itself where the next one waits already and there is a core for both.
//
//	Write ─┬─ nobody hashes ────▶ hashes, with the first of those who wait
//	       └─ somebody does ──▶ waits ─┬─ was hashed by another ─▶ returns
//	                                   └─ that one is done ──────▶ hashes on
//
// There are no goroutines but the writers'. Without cgo or without the processor's
// instructions all this is crypto/sha256, whose state is this one's in any case.
package digester

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/opencontainers/go-digest"
)

// small is how many bytes are too few to look for company.
const small = 16 << 10

// New returns a hash of an algorithm, which must be available. It has the state of
// Go's own, which it can be made to go on from. It is for one goroutine, and Write
// returns when the bytes are hashed.
func New(a digest.Algorithm) hash.Hash {
	if a != digest.SHA256 || !usable() {
		return a.Hash()
	}
	return newPaired(&shared)
}

// shared is where all streams of this process meet: whoever owns them, the cores
// are the same.
var shared pool

// paired is a SHA-256 that leaves its large writes to a pool. All but them is
// crypto/sha256's.
type paired struct {
	own
	pool *pool
	job  job
	room [stateSize]byte // where state is written
}

// own is what crypto/sha256 gives.
type own interface {
	hash.Hash
	encoding.BinaryAppender
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

func newPaired(p *pool) *paired {
	return &paired{own: sha256.New().(own), pool: p, job: job{wake: make(chan bool, 1)}}
}

// The state of crypto/sha256: a name of four bytes, eight words, the bytes of a
// block that is not full yet, and how many there were in all.
const (
	stateWords  = 4
	stateLength = stateWords + 8*4 + sha256.BlockSize
	stateSize   = stateLength + 8
)

// Write implements io.Writer. It never fails.
func (h *paired) Write(p []byte) (int, error) {
	if len(p) < small {
		return h.own.Write(p)
	}
	written := len(p)
	state := h.state()
	if open := length(state) % sha256.BlockSize; open != 0 {
		_, _ = h.own.Write(p[:sha256.BlockSize-open]) // never fails
		p = p[sha256.BlockSize-open:]
		state = h.state()
	}
	whole := len(p) / sha256.BlockSize * sha256.BlockSize
	h.job.state, h.job.data = words(state), p[:whole]
	h.pool.hash(&h.job)
	for n, word := range h.job.state {
		binary.BigEndian.PutUint32(state[stateWords+4*n:], word)
	}
	binary.BigEndian.PutUint64(state[stateLength:], length(state)+uint64(whole))
	if err := h.UnmarshalBinary(state); err != nil {
		panic(err) // it is what Go made
	}
	_, _ = h.own.Write(p[whole:]) // never fails
	return written, nil
}

// state is crypto/sha256's, whose form the journals of started downloads hold it to.
func (h *paired) state() []byte {
	state, err := h.AppendBinary(h.room[:0])
	if err != nil || len(state) != stateSize {
		panic(fmt.Sprintf("the state of crypto/sha256 has %d bytes: %v", len(state), err))
	}
	return state
}

func words(state []byte) (w [8]uint32) {
	for n := range w {
		w[n] = binary.BigEndian.Uint32(state[stateWords+4*n:])
	}
	return w
}

func length(state []byte) uint64 { return binary.BigEndian.Uint64(state[stateLength:]) }

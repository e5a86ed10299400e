package inflate

import "github.com/berth-run/berth/pkg/image/buffer"

// bounds are those of batches: bytes and frames of each, and how many are decoded
// beside each other.
type bounds struct {
	packed, plain int
	frames        int
	batches       int
}

// ahead decodes batches of frames beside each other. What it reads that belongs in
// no batch is left for alone. It is for one goroutine.
type ahead struct {
	in     *input
	pool   *Pool
	bounds bounds
	offset int64 // compressed bytes before what comes next, once a batch has been read

	queue []*batch // in order
	idle  []*batch
	have  int // batches, in queue and idle

	rest   *frame // what comes after the queue
	single bool   // rest is for alone
	err    error  // what comes after the queue, where there is no rest
	saved  []byte // what was read of rest

	began bool // a frame was decoded alone
	large bool // the last of them would not have been fit for a batch
}

// newAhead leaves the first frame alone: that is all that most layers have.
func newAhead(in *input, pool *Pool) *ahead {
	return &ahead{in: in, pool: pool, bounds: pool.bounds}
}

// any reports whether there is something to read.
func (a *ahead) any() bool { return len(a.queue) > 0 }

// inside reports whether part of a batch has been read.
func (a *ahead) inside() bool { return a.any() && a.queue[0].begun }

// fill has batches decoded, until there are enough or something else comes.
func (a *ahead) fill() {
	for len(a.queue) < max(1, a.bounds.batches) && !a.single && a.err == nil {
		if b := a.gather(); b != nil {
			a.queue = append(a.queue, b)
			go b.decode()
		}
	}
}

// gather reads frames into a batch, if there are any for one.
func (a *ahead) gather() *batch {
	var b *batch
	for b == nil || len(b.parts) < a.bounds.frames {
		if a.rest == nil {
			if a.rest, a.err = nextFrame(a.in); a.err != nil {
				break
			}
		}
		if !a.fits(a.rest) {
			a.single = true
			break
		}
		if b == nil {
			if b = a.take(); b == nil {
				a.single = true
				break
			}
		}
		from := b.packed
		ok, err := b.add(a.rest)
		if err != nil {
			a.rest, a.err = nil, err
			break
		}
		if !ok {
			a.keep(b.in[from:b.packed])
			a.single = len(b.parts) == 0
			break
		}
		a.rest, b.end = nil, a.in.offset
	}
	if b != nil && len(b.parts) == 0 {
		a.idle = append(a.idle, b)
		return nil
	}
	return b
}

// keep keeps what was read of rest for whoever reads on.
func (a *ahead) keep(p []byte) {
	if len(p) > 0 {
		a.saved = append(a.saved[:0], p...)
		a.rest.before = a.saved
	}
}

// fits reports whether a frame may be fit for a batch.
func (a *ahead) fits(f *frame) bool {
	switch {
	case !a.began || a.bounds.batches < 2:
		return false
	case f.sized:
		return f.bound <= int64(a.bounds.plain)
	default:
		return !a.large
	}
}

// take returns an empty batch, if there may be one more.
func (a *ahead) take() *batch {
	if a.pool.memory.Short() {
		return nil
	}
	if n := len(a.idle); n > 0 {
		b := a.idle[n-1]
		a.idle = a.idle[:n-1]
		b.reset()
		return b
	}
	if !a.pool.memory.Borrow(a.cost(a.have+1) - a.cost(a.have)) {
		return nil
	}
	a.have++
	if b, ok := a.pool.batches.Get().(*batch); ok {
		b.reset()
		return b
	}
	return newBatch(a.bounds)
}

// cost is how much memory n batches are, with what is saved between them.
func (a *ahead) cost(n int) int64 {
	if n == 0 {
		return 0
	}
	const round = buffer.Size - 1
	each, saved := int64(a.bounds.packed+a.bounds.plain), int64(a.bounds.packed)
	return int64(n)*((each+round)&^round) + (saved+round)&^round
}

// read returns what the batches hold.
func (a *ahead) read(p []byte) (int, error) {
	b := a.queue[0]
	<-b.done
	b.begun = true
	n := b.read(p)
	if len(b.parts) > 0 || n > 0 && b.err != nil {
		return n, nil
	}
	a.queue, a.offset = a.queue[1:], b.end
	a.idle = append(a.idle, b)
	return n, b.err
}

// alone returns the frame that comes after the queue, which is empty, or the error.
func (a *ahead) alone() (*frame, error) {
	a.release()
	if a.rest == nil {
		return nil, a.err
	}
	f := a.rest
	a.rest, a.single, a.began = nil, false, true
	return f, nil
}

// learn looks at a frame that was decoded alone.
func (a *ahead) learn(f *frame) {
	a.large = f.packed > int64(a.bounds.packed) || f.plain > int64(a.bounds.plain)
}

// release gives the memory back that is idle, which is all of it.
func (a *ahead) release() {
	for _, b := range a.idle {
		a.pool.batches.Put(b)
	}
	a.pool.memory.Return(a.cost(a.have))
	a.idle, a.have, a.saved = nil, 0, nil
}

func (a *ahead) close() {
	for _, b := range a.queue {
		<-b.done
		a.idle = append(a.idle, b)
	}
	a.queue = nil
	a.release()
}

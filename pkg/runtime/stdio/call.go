package stdio

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// pumpLimit bounds the wait for the pump's goroutine, which a log on a disk
// that hangs holds up. Ends of containers wait for it, and creates.
const pumpLimit = 5 * time.Second

// call is something to run on the pump's goroutine.
type call struct {
	f   func()
	ran chan struct{}
}

// calls are what others want of the pump's goroutine. Each caller waits for its
// own, so there are no more than there are callers, and containers to drain and
// close.
type calls struct {
	wake    int           // eventfd that the goroutine waits for too
	patient time.Duration // bound of each wait for the goroutine

	mu      sync.Mutex
	queue   []*call
	closing bool
}

// close refuses what comes from now on.
func (q *calls) close() {
	q.mu.Lock()
	q.closing = true
	q.mu.Unlock()
	q.notify()
}

// submit has f run on the pump's goroutine, before Run not yet: f may move data,
// which would overwrite the slot of a batch that is not finished. It returns nil
// where the pump has been closed.
func (q *calls) submit(f func()) *call {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil
	}
	c := &call{f, make(chan struct{})}
	q.queue = append(q.queue, c)
	q.notify()
	return c
}

// do runs f, which may not block, on the pump's goroutine, and waits for it. With
// an error f has not run and never will.
func (q *calls) do(f func()) error {
	c := q.submit(f)
	if c == nil {
		return fmt.Errorf("log pump is closed: %w", errs.Unavailable)
	}
	if q.within(c.ran) {
		return nil
	}
	if q.withdraw(c) {
		return fmt.Errorf("log pump is held up: %w", errs.Timeout)
	}
	<-c.ran // it has begun
	return nil
}

func (q *calls) withdraw(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.queue, c)
	if i < 0 {
		return false
	}
	q.queue = slices.Delete(q.queue, i, i+1)
	return true
}

// within reports whether ran is closed in time.
func (q *calls) within(ran <-chan struct{}) bool {
	limit := time.NewTimer(q.patient)
	defer limit.Stop()
	select {
	case <-ran:
		return true
	case <-limit.C:
		return false
	}
}

func (q *calls) notify() {
	_, _ = unix.Write(q.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full means that it is awake
}

// run runs what has been submitted; true means to stop.
func (q *calls) run() (stop bool) {
	for {
		q.mu.Lock()
		if len(q.queue) == 0 {
			defer q.mu.Unlock()
			return q.closing
		}
		c := q.queue[0]
		q.queue = slices.Delete(q.queue, 0, 1)
		q.mu.Unlock()
		c.f()
		close(c.ran)
	}
}

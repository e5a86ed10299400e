// Package trim gives memory back to the machine when a daemon falls quiet.
//
// The Go runtime keeps what a burst of requests has left, on the guess that the
// next burst is near. A node's daemons are quiet nearly always, and their memory
// is the pods' loss.
package trim

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// quiet is how long nothing must have happened.
	quiet = 700 * time.Millisecond
	// patience is how long a daemon that is never quiet may keep garbage.
	patience = 30 * time.Second
	// worthwhile is how many bytes must have been allocated since the last time:
	// a collection costs a millisecond or two.
	worthwhile = 1 << 20
)

// Trimmer watches one process. The zero value is ready.
type Trimmer struct {
	mu    sync.Mutex
	timer *time.Timer
	since time.Time // the first Touch after the last trim
	last  uint64    // bytes allocated by then
}

// Touch says that something has happened. It is cheap.
func (t *Trimmer) Touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	wait := min(quiet, max(0, patience-now.Sub(t.since)))
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, t.trim)
		return
	}
	t.timer.Reset(wait)
}

// trim runs on the timer's goroutine.
func (t *Trimmer) trim() {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	allocated := sample[0].Value.Uint64()
	t.mu.Lock()
	due := allocated-t.last >= worthwhile
	if due {
		t.last = allocated
	}
	t.since = time.Time{}
	t.mu.Unlock()
	if due {
		debug.FreeOSMemory()
	}
}

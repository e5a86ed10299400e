package fetch

import (
	"fmt"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// parts is how many parts the window of a watch has: a stall is seen at most one
// part late.
const parts = 4

// watch ends a request that brings too little while it is waited on.
type watch struct {
	limit time.Duration
	rate  int64 // bytes a second
	end   func(error)

	mu    sync.Mutex
	timer *time.Timer
	runs  int // counts starts and stops, so that a late tick is known
	came  [parts]int64
	ticks int
}

func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs++
	w.came, w.ticks = [parts]int64{}, 0
	w.armLocked()
}

func (w *watch) armLocked() {
	run := w.runs
	w.timer = time.AfterFunc(w.limit/parts, func() { w.tick(run) })
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs++
	w.timer.Stop()
}

func (w *watch) add(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.came[w.ticks%parts] += int64(n)
}

func (w *watch) tick(run int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if run != w.runs {
		return
	}
	var sum int64
	for _, n := range w.came {
		sum += n
	}
	w.ticks++
	if least := max(1, int64(float64(w.rate)*w.limit.Seconds())); w.ticks >= parts && sum < least {
		w.end(&stalled{came: sum, limit: w.limit})
		return
	}
	w.came[w.ticks%parts] = 0
	w.armLocked()
}

// stalled says that a connection brought too little.
type stalled struct {
	came  int64
	limit time.Duration
}

func (s *stalled) Error() string {
	return fmt.Sprintf("it stalled: %d bytes came in %s", s.came, s.limit)
}
func (s *stalled) Unwrap() error { return errs.Unavailable }

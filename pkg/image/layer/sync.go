package layer

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// groupSync runs syncfs for many callers: those that come while one runs share
// the next. syncfs flushes the whole file system, so one call serves all the
// layers whose last byte was written before it began.
type groupSync struct {
	mu      sync.Mutex
	running bool
	next    *syncRound
}

type syncRound struct {
	done chan struct{}
	err  error
}

// do returns when everything that the caller has written below dir is on disk.
func (g *groupSync) do(dir string) error {
	g.mu.Lock()
	if g.next == nil {
		g.next = &syncRound{done: make(chan struct{})}
	}
	mine := g.next
	if g.running {
		g.mu.Unlock()
		<-mine.done
		return mine.err
	}
	g.running = true
	for round := mine; round != nil; round = g.next {
		g.next = nil
		g.mu.Unlock()
		round.err = syncfs(dir)
		close(round.done)
		g.mu.Lock()
	}
	g.running = false
	g.mu.Unlock()
	return mine.err
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

package session

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

const (
	// grace is how long an output is read on without a byte after the process has
	// ended: others may hold it open.
	grace = 250 * time.Millisecond
	// rest bounds what is read on. A pipe holds no more (fs.pipe-max-size).
	rest = 1 << 20
)

// output is one output of a process on its way to the client.
type output struct {
	from *os.File
	to   io.WriteCloser
	over atomic.Bool
	done chan struct{}
}

// follow copies to its end and closes to. What the process wrote is copied
// whole, however slow the client is: it is the process that waits.
func follow(from *os.File, to io.WriteCloser) *output {
	o := &output{from: from, to: to, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer closeOutput(to)
		o.copy()
	}()
	return o
}

func (o *output) copy() {
	buf := make([]byte, 32<<10)
	for left := int64(rest); left > 0; {
		fresh := o.over.Load()
		if fresh {
			_ = o.from.SetReadDeadline(time.Now().Add(grace)) // pipes and terminals have deadlines
		}
		n, err := o.from.Read(buf)
		if n > 0 {
			if _, err := o.to.Write(buf[:n]); err != nil {
				return // the client has gone, or wants no more
			}
		}
		if fresh {
			left -= int64(n)
		}
		// A deadline may have passed while the client was waited for.
		if err != nil && (fresh || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
	}
}

// end says that the process has ended, and waits for the rest.
func (o *output) end(ctx context.Context) {
	if o == nil {
		return
	}
	o.over.Store(true)
	_ = o.from.SetReadDeadline(time.Now().Add(grace)) // wakes a Read
	select {
	case <-o.done:
	case <-ctx.Done():
	}
}

// feed copies the client's input to the process until either end closes, and
// closes to where the client's input has ended. ctx ends before the input of a
// client that has gone does. A program that reads no more still has its client's
// input taken, which would otherwise hold up what shares its connection.
func feed(ctx context.Context, from io.Reader, to *os.File, closeAtEnd bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && to != nil {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = to.Close() // see above
				to = nil
			}
		}
		if err != nil {
			if to != nil && closeAtEnd && ctx.Err() == nil {
				_ = to.Close() // nobody reads what could not be written
			}
			return
		}
	}
}

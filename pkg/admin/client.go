package admin

import (
	"io"
	"sync"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/session"
)

// message is one that a client of Exec or Attach sends after the first.
type message interface {
	GetStdin() []byte
	GetCloseStdin() bool
	GetSize() *apiv1.TerminalSize
}

// client is the other end of an Exec or an Attach.
type client struct {
	stdin *io.PipeReader
	sizes chan session.Size

	mu sync.Mutex // one Send at a time
}

// newClient reads what the client sends until recv fails, which the end of its
// handler makes it do. The caller closes it.
func newClient(size *apiv1.TerminalSize, recv func() (message, error)) *client {
	stdin, fill := io.Pipe()
	c := &client{stdin: stdin, sizes: make(chan session.Size, 1)}
	c.resize(size)
	go c.receive(recv, fill)
	return c
}

// close drops the input that nobody takes any more.
func (c *client) close() { _ = c.stdin.Close() } // never fails

func (c *client) receive(recv func() (message, error), stdin *io.PipeWriter) {
	defer stdin.Close()
	for {
		m, err := recv()
		if err != nil {
			return
		}
		c.resize(m.GetSize())
		if b := m.GetStdin(); len(b) > 0 {
			_, _ = stdin.Write(b) // see close
		}
		if m.GetCloseStdin() {
			_ = stdin.Close() // never fails
		}
	}
}

// resize keeps the newest size for whoever asks next.
func (c *client) resize(s *apiv1.TerminalSize) {
	if s == nil {
		return
	}
	select {
	case <-c.sizes:
	default:
	}
	c.sizes <- session.Size{Width: uint16(s.GetWidth()), Height: uint16(s.GetHeight())}
}

// output is what goes to the client by send.
func (c *client) output(send func([]byte) error) io.WriteCloser {
	return output(func(b []byte) error { return c.locked(func() error { return send(b) }) })
}

func (c *client) locked(send func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return send()
}

type output func([]byte) error

// Write implements io.Writer.
func (o output) Write(p []byte) (int, error) {
	if err := o(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer. The end of an output is not told by itself.
func (output) Close() error { return nil }

package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lingering is how long a closed connection waits for its client to have read
	// all and to close too.
	lingering = time.Minute
	// watching is how often a session looks whether its client is still there.
	watching = 2 * time.Second
)

// listener makes conns.
type listener struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	tcp, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{TCPConn: tcp.(*net.TCPConn), s: l.s}
	c.gone, c.goneNow = context.WithCancel(context.Background())
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.conns[c] = struct{}{}
	return c, nil
}

// conn is a client's connection. It tells when the client has gone, and Close
// does not lose what the client has yet to read: the kernel drops that with a
// connection that is closed while the client still sends.
type conn struct {
	*net.TCPConn
	s       *Server
	gone    context.Context
	goneNow context.CancelFunc
	closing sync.Once
	closed  atomic.Bool
	once    sync.Once
	reads   atomic.Uint64
}

type connKey struct{}

// connContext gives requests their connection, and an end with the client's.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	if secure, ok := nc.(*tls.Conn); ok {
		nc = secure.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return ctx
	}
	ctx, cancel := context.WithCancel(context.WithValue(ctx, connKey{}, c))
	context.AfterFunc(c.gone, cancel)
	return ctx
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.reads.Add(1)
	if c.closed.Load() { // what comes now is nobody's
		return 0, net.ErrClosed
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.goneNow() // before anybody hears of the end
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.goneNow()
	}
	return n, err
}

// ReadFrom hides that of TCPConn, which goes around Write.
func (c *conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{c}, r) }

// WriteTo hides that of TCPConn, which goes around Read.
func (c *conn) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{c}) }

// Close ends our side, and the connection once the client has ended its own.
func (c *conn) Close() error {
	var err error
	c.closing.Do(func() {
		c.closed.Store(true)
		c.goneNow()
		if err = c.CloseWrite(); err != nil {
			c.finish()
			return
		}
		_ = c.SetDeadline(time.Now().Add(lingering)) // a TCP connection has deadlines
		go func() {
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{c.TCPConn}) // see lingering
			c.finish()
		}()
	})
	return err
}

// finish closes the connection whatever the client does.
func (c *conn) finish() {
	c.once.Do(func() {
		c.goneNow()
		_ = c.TCPConn.Close() // what could be sent has been
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		delete(c.s.conns, c)
	})
}

// watch sees the end of a client whose data nobody reads at the moment, until
// ctx ends.
func (c *conn) watch(ctx context.Context) {
	tick := time.NewTicker(watching)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.poll(unix.POLLRDHUP) {
			c.goneNow()
			return
		}
	}
}

// knock writes nothing to a client whose data nobody has read for a while, until
// ctx ends. The end of a client that has gone is behind that data, and does not
// come while the window is shut; but what is written to it comes back as a reset.
func (c *conn) knock(ctx context.Context, on io.Writer) {
	tick := time.NewTicker(watching)
	defer tick.Stop()
	for last := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		reads := c.reads.Load()
		if reads == last && c.poll(unix.POLLIN) {
			if _, err := on.Write(nil); err != nil {
				return
			}
		}
		last = reads
	}
}

// poll tells whether one of these events is there, or an error.
func (c *conn) poll(events int16) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	there := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(p, 0)
		there = err == nil && n > 0
	})
	return err != nil || there
}

package main

import (
	"errors"
	"io"
	"math"
	"net"
	"time"
)

// What a slow network does.
const (
	slowLatency = 20 * time.Millisecond
	slowRate    = 50e6 // bytes a second, of each connection
	slowPiece   = 64 << 10
)

// slowly makes connections slow: each request waits, and each answer trickles.
func slowly(l net.Listener) net.Listener { return slowListener{l} }

type slowListener struct{ net.Listener }

// Accept implements net.Listener.
func (l slowListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c, asked: true}, nil
}

// slowConn is one connection. HTTP/1.1 reads and writes it in turn.
type slowConn struct {
	net.Conn
	asked bool      // nothing has been read since the last answer
	free  time.Time // when what has been written is through
}

// Read implements net.Conn.
func (c *slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.asked {
		c.asked = false
		<-time.After(slowLatency)
	}
	return n, err
}

// Write implements net.Conn.
func (c *slowConn) Write(p []byte) (int, error) {
	c.asked = true
	done := 0
	for done < len(p) {
		n, err := c.Conn.Write(p[done:min(len(p), done+slowPiece)])
		done += n
		if err != nil {
			return done, err
		}
		c.trickle(n)
	}
	return done, nil
}

// ReadFrom implements io.ReaderFrom: files go out by sendfile here too.
func (c *slowConn) ReadFrom(r io.Reader) (int64, error) {
	c.asked = true
	var done int64
	left := int64(math.MaxInt64)
	if l, ok := r.(*io.LimitedReader); ok { // which the connection would not look behind
		r, left = l.R, l.N
	}
	for done < left {
		n, err := io.CopyN(c.Conn, r, min(slowPiece, left-done))
		done += n
		switch {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, err
		}
		c.trickle(int(n))
	}
	return done, nil
}

// trickle waits until so many bytes are through.
func (c *slowConn) trickle(n int) {
	now := time.Now()
	if c.free.Before(now) {
		c.free = now
	}
	c.free = c.free.Add(time.Duration(float64(n) / slowRate * float64(time.Second)))
	// Timers are coarse: sleep only for what is worth it.
	if wait := c.free.Sub(now); wait > 2*time.Millisecond {
		<-time.After(wait)
	}
}

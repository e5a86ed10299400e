package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// forwardIdle is how long a client that sends nothing is waited for after the
// program has ended its side of the connection: older clients wait for ours.
const forwardIdle = time.Second

// Forward copies between a client's stream and a connection to a program until
// both sides have ended, and closes both. Either side may end first, and what the
// other one sends then still arrives.
func Forward(ctx context.Context, conn *net.TCPConn, stream io.ReadWriteCloser) error {
	defer stream.Close()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	up := &upstream{conn: conn, ended: make(chan struct{})}
	go up.copy(stream)
	_, err := io.Copy(stream, conn)
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	_ = stream.Close() // a client that has gone needs no end
	return up.wait(ctx)
}

// upstream is the way from the client to the program.
type upstream struct {
	conn    *net.TCPConn
	moved   atomic.Int64
	writing atomic.Bool
	ended   chan struct{}
}

// copy ends with the client's stream, which is broken when its connection is, or
// with the program's connection.
func (u *upstream) copy(from io.Reader) {
	defer close(u.ended)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			u.writing.Store(true)
			if _, err := u.conn.Write(buf[:n]); err != nil {
				return // the other direction tells
			}
			u.writing.Store(false)
			u.moved.Add(int64(n))
		}
		if err != nil {
			_ = u.conn.CloseWrite() // it may be closed
			return
		}
	}
}

// wait returns once the client has ended, or sends nothing any more.
func (u *upstream) wait(ctx context.Context) error {
	for moved := int64(-1); ; {
		select {
		case <-u.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(forwardIdle):
		}
		now := u.moved.Load()
		if now == moved && !u.writing.Load() {
			return nil
		}
		moved = now
	}
}

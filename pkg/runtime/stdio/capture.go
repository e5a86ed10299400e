package stdio

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pieceSize is how much of a long output is handed on at a time. Short ones, as of
// probes, are kept until the end.
const pieceSize = 64 << 10

// Capture keeps the output of an exec in memory, or hands it on.
type Capture struct {
	outputs [2]captured
	readers sync.WaitGroup
}

type captured struct {
	stream int
	read   *os.File
	child  *os.File
	data   bytes.Buffer
	room   int64 // for what may still come into data, and on
}

// NewCapture makes two pipes.
func NewCapture() (*Capture, error) {
	c := &Capture{}
	for i := range c.outputs {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			c.Close()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		c.outputs[i].stream = i + 1
		c.outputs[i].child = os.NewFile(uintptr(fds[1]), "child")
		if err := unix.SetNonblock(fds[0], true); err != nil {
			_ = unix.Close(fds[0]) // a read end
			c.Close()
			return nil, fmt.Errorf("make pipe: %w", err)
		}
		c.outputs[i].read = os.NewFile(uintptr(fds[0]), "capture")
	}
	return c, nil
}

// Child returns what to give to the process. The files stay the Capture's.
func (c *Capture) Child() (stdout, stderr *os.File) {
	return c.outputs[0].child, c.outputs[1].child
}

// Begin closes the process's ends, which it has now, and begins to read. Up to
// limit bytes of each stream are taken, the rest is read and dropped. Where piece is
// not nil it gets what is long, stream 1 or 2 in order and both at once, and End
// returns what follows that; after an error from it the rest is dropped.
func (c *Capture) Begin(limit int64, piece func(stream int, data []byte) error) {
	for i := range c.outputs {
		o := &c.outputs[i]
		_ = o.child.Close() // nothing was written through it
		o.child, o.room = nil, limit
		c.readers.Go(func() {
			o.take(piece)
			_, _ = io.Copy(io.Discard, o.read) // a read error is the end of what there is
		})
	}
}

// take reads to the end, or until there is no room.
func (o *captured) take(piece func(stream int, data []byte) error) {
	for o.room > 0 {
		size := o.room
		if piece != nil {
			size = min(size, pieceSize)
		}
		n, _ := o.data.ReadFrom(io.LimitReader(o.read, size)) // as above
		if o.room -= n; n < size || piece == nil {
			return
		}
		err := piece(o.stream, o.data.Bytes())
		if o.data.Reset(); err != nil {
			o.room = 0
		}
	}
}

// End returns what was captured. It waits until the pipes end, or for at most
// grace: a process that the exec left behind may hold them open. What is in them by
// then is taken in any case: on a busy machine no reader may have run yet.
func (c *Capture) End(grace time.Duration) (stdout, stderr []byte) {
	for i := range c.outputs {
		_ = c.outputs[i].read.SetReadDeadline(time.Now().Add(grace)) // pipes have deadlines
	}
	c.readers.Wait()
	for i := range c.outputs {
		c.outputs[i].takeNow()
	}
	return c.outputs[0].data.Bytes(), c.outputs[1].data.Bytes()
}

// takeNow reads what is in the pipe now.
func (o *captured) takeNow() {
	raw, err := o.read.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = raw.Control(func(fd uintptr) { // as above
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ) // FIONREAD
		if err != nil || n == 0 || o.room <= 0 {
			return
		}
		rest := make([]byte, min(int64(n), o.room))
		if n, err = unix.Read(int(fd), rest); err == nil {
			o.data.Write(rest[:n])
		}
	})
}

// Close closes the pipes. Call it after End, or instead of Begin.
func (c *Capture) Close() {
	for i := range c.outputs {
		for _, f := range []*os.File{c.outputs[i].read, c.outputs[i].child} {
			if f != nil {
				_ = f.Close() // nothing was written through it
			}
		}
	}
}

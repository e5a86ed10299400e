package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// clientQueue bounds the output that waits for one client; what comes while it
// is full is lost to that client.
const clientQueue = 1 << 20

// departure is how long a process that is killed may take to close what it has.
const departure = 30 * time.Millisecond

// AttachIO holds a client's ends; nil leaves a stream out.
type AttachIO struct {
	Stdin, Stdout, Stderr *os.File
}

// client is one attached client.
type client struct {
	outputs [3]*os.File // by stream index
	changed chan struct{}

	mu      sync.Mutex
	queue   []chunk
	bytes   int
	dropped int
	ended   bool
}

type chunk struct {
	stream int
	data   []byte
}

// offer queues data, or drops it. It never blocks.
func (c *client) offer(stream int, data []byte) {
	if c.outputs[stream] == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.bytes+len(data) > clientQueue {
		c.dropped += len(data)
		return
	}
	c.queue = append(c.queue, chunk{stream, append([]byte(nil), data...)})
	c.bytes += len(data)
	c.signal()
}

// finish says that nothing will follow.
func (c *client) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.signal()
}

func (c *client) signal() {
	select {
	case c.changed <- struct{}{}:
	default: // it has been told already
	}
}

func (c *client) next() (queue []chunk, ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue, c.queue, c.bytes = c.queue, nil, 0
	return queue, c.ended
}

// write hands the client its output until it is finished, gone, or ctx ends.
func (c *client) write(ctx context.Context) error {
	for {
		queue, ended := c.next()
		for _, k := range queue {
			if _, err := c.outputs[k.stream].Write(k.data); err != nil {
				return fmt.Errorf("attached client: %w", err)
			}
		}
		if ended {
			return nil
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver runs on the pump's goroutine.
func (s *Stdio) deliver(stream int, data []byte) {
	if len(data) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		c.offer(stream, data)
	}
}

// Attach connects a client until the container ends, the client's input ends
// with StdinOnce, a client's end breaks, or ctx is done. It takes the files
// over; closeStdin is called when StdinOnce has closed the container's stdin.
func (s *Stdio) Attach(ctx context.Context, files AttachIO, closedStdin func()) error {
	ends, err := takeEnds(files)
	if err != nil {
		return err
	}
	defer closeEnds(ends)
	c := &client{outputs: [3]*os.File{1: ends.Stdout, 2: ends.Stderr}, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.clients == nil {
		s.clients = map[*client]struct{}{}
	}
	s.clients[c] = struct{}{}
	if s.over || s.running == 0 {
		c.finish()
	}
	s.mu.Unlock()
	defer func() { s.mu.Lock(); defer s.mu.Unlock(); delete(s.clients, c) }()
	defer context.AfterFunc(ctx, func() { expire(ends) })()

	var input sync.WaitGroup
	defer input.Wait()
	defer cancel()
	defer expire(ends)
	if ends.Stdin != nil {
		input.Go(func() {
			if s.copyStdin(ctx, ends.Stdin) && s.cfg.StdinOnce && !s.cfg.Terminal {
				s.closeStdin()
				closedStdin()
			}
		})
	}
	err = c.write(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// copyStdin writes what the client sends to the container and reports whether
// it reached the end of it.
func (s *Stdio) copyStdin(ctx context.Context, from *os.File) (atEnd bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && s.writeStdin(ctx, buf[:n]) != nil {
			return false
		}
		if err != nil {
			return errors.Is(err, io.EOF) && stays(ctx)
		}
	}
}

// stays reports whether the client is there a moment after its stdin has ended. One
// that is killed closes all of its descriptors, one after the other: what it sent
// has not ended, and whoever comes next goes on with it.
func stays(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(departure):
		return true
	}
}

// writeStdin waits for a container that does not read for as long as its client
// stays.
func (s *Stdio) writeStdin(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := s.tryStdin(data)
		data = data[n:]
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if len(data) > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

func (s *Stdio) tryStdin(data []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return 0, os.ErrClosed
	}
	if s.tty >= 0 {
		n, err = unix.Write(s.tty, data)
		return max(n, 0), err
	}
	if s.stdin == nil {
		return 0, os.ErrClosed
	}
	raw, err := s.stdin.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { n, err = unix.Write(int(fd), data) })
	return max(n, 0), errors.Join(err, controlErr)
}

// takeEnds makes the files non-blocking, so that a write to a client that does
// not read can be given up. Where possible it does so on a new open file, since
// the client's own may be a terminal that it shares with others.
func takeEnds(files AttachIO) (AttachIO, error) {
	for _, f := range []**os.File{&files.Stdin, &files.Stdout, &files.Stderr} {
		if *f == nil {
			continue
		}
		g, err := nonBlocking(*f)
		if err != nil {
			closeEnds(files)
			return AttachIO{}, fmt.Errorf("attach: %w: %w", errs.Invalid, err)
		}
		*f = g
	}
	return files, nil
}

func nonBlocking(f *os.File) (*os.File, error) {
	defer f.Close()
	fd := int(f.Fd())
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags&unix.O_ACCMODE|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil { // a socket
		if again, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return nil, err
		}
		if err := unix.SetNonblock(again, true); err != nil {
			_ = unix.Close(again) // nothing was written
			return nil, err
		}
	}
	return os.NewFile(uintptr(again), "attached"), nil
}

// expire ends all reads and writes on the client's ends.
func expire(ends AttachIO) {
	past := time.Unix(1, 0)
	for _, f := range []*os.File{ends.Stdin, ends.Stdout, ends.Stderr} {
		if f != nil {
			_ = f.SetDeadline(past) // plain files have none and never wait
		}
	}
}

func closeEnds(ends AttachIO) {
	for _, f := range []*os.File{ends.Stdin, ends.Stdout, ends.Stderr} {
		if f != nil {
			_ = f.Close() // write errors came with the writes
		}
	}
}

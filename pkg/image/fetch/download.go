package fetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/errs"
)

// progress is how many bytes make an attempt one that came on.
const progress = 64 << 10

// errRange says that a host ignores ranges or answers them wrongly.
var errRange = errors.New("it does not serve the ranges asked for")

// download is one blob that comes.
type download struct {
	options             Options
	size                int64
	pool                *pool
	memory, connections *Share
	queue               chan *chunk   // in order, for the reader
	wake                chan struct{} // a chunk was read, or the limit has grown
	cancel              context.CancelCauseFunc
	running             sync.WaitGroup
	kept                *stream // of a host without ranges, from one chunk to the next

	mu      sync.Mutex
	pace    pace
	unread  int // chunks that come or wait to be read
	hosts   []*host
	current int // index of the host in use
}

// feed cuts the blob into chunks, each as soon as there is memory and a
// connection for it.
func (d *download) feed(ctx context.Context, from int64) {
	before := make(chan struct{})
	close(before)
	done := (<-chan struct{})(before)
	if len(d.hosts) == 0 {
		d.cancel(fmt.Errorf("no host to fetch from: %w", errs.Unavailable))
		return
	}
	for from < d.size {
		c := newChunk(from, min(from+d.options.Chunk, d.size), done)
		if d.wait(ctx) != nil || d.reserve(ctx, c.end-from) != nil || d.connections.Acquire(ctx, 1) != nil {
			return
		}
		d.mu.Lock()
		d.unread++
		d.mu.Unlock()
		c.connected = true
		d.queue <- c
		d.running.Go(func() {
			d.bring(ctx, c)
			if _, err := receive(ctx, c.before); err == nil && c.pos == c.end {
				close(c.done)
			}
		})
		from, done = c.end, c.done
	}
}

// wait waits until there may be one chunk more. Those that have come and wait, for a
// slower one before them or for who reads, count too: what dies with the process is at
// most one chunk for each connection.
func (d *download) wait(ctx context.Context) error {
	for {
		d.mu.Lock()
		ok := d.unread < d.pace.limit
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-d.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reserve takes memory. Where it has to wait for it, who reads is the slow one.
func (d *download) reserve(ctx context.Context, n int64) error {
	start := time.Now()
	err := d.memory.Acquire(ctx, n)
	if time.Since(start) > time.Millisecond {
		d.mu.Lock()
		d.pace.held = true
		d.mu.Unlock()
	}
	return err
}

// read notes that a chunk was read.
func (d *download) read() {
	d.mu.Lock()
	d.unread--
	d.mu.Unlock()
	d.stir()
}

func (d *download) stir() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// bring fetches one chunk, from whichever host gives it.
func (d *download) bring(ctx context.Context, c *chunk) {
	defer d.disconnect(c)
	var from *host
	tries := 0
	for c.pos < c.end {
		h := d.host()
		if h != from {
			from, tries = h, 0
		}
		reached := c.pos
		alone, err := d.turn(ctx, h, c)
		if err == nil {
			err = d.attempt(ctx, h, c, alone)
		}
		if ctx.Err() != nil {
			return
		}
		came := c.pos - reached
		if err == nil && c.pos < c.end && came < progress {
			err = errRange // a few bytes for each request
		}
		if err == nil {
			continue
		}
		if came >= progress {
			tries = 0
		}
		tries++
		d.disconnect(c)
		if err := d.failed(ctx, h, tries, err); err != nil {
			d.cancel(err)
			return
		}
	}
	close(c.blocks)
}

// turn waits until the chunk may ask the host, and has a connection. Of a host that
// is to be read in one stream it is the only chunk then.
func (d *download) turn(ctx context.Context, h *host, c *chunk) (alone bool, err error) {
	if err := pause(ctx, d.until(h)); err != nil {
		return false, err
	}
	alone = d.single(h)
	if alone {
		select {
		case <-c.before:
		default:
			d.disconnect(c)
			if _, err := receive(ctx, c.before); err != nil {
				return alone, err
			}
		}
	}
	if !c.connected {
		err = d.connections.Acquire(ctx, 1)
		c.connected = err == nil
	}
	return alone, err
}

func (d *download) disconnect(c *chunk) {
	if c.connected {
		d.connections.Release(1)
		c.connected = false
	}
}

// attempt reads from one host as far as it comes.
func (d *download) attempt(ctx context.Context, h *host, c *chunk, alone bool) error {
	s, err := d.stream(ctx, h, c, alone)
	if err != nil {
		return err
	}
	defer func() {
		s.watch.stop()
		if c.pos == c.end && s.end > c.end {
			d.keep(s)
			return
		}
		s.close()
	}()
	if err := s.skip(c.pos, d.pool); err != nil {
		return err
	}
	for c.pos < min(c.end, s.end) {
		n, err := s.read(c.room(d.pool))
		c.came(n)
		d.count(h, int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *download) count(h *host, n int64) {
	d.mu.Lock()
	h.served = h.served || n > 0
	limit := d.pace.limit
	d.pace.add(n, time.Now())
	more := d.pace.limit > limit
	d.mu.Unlock()
	if more {
		d.stir()
	}
}

// stream returns a body of the host's that holds the chunk's next byte, with its
// watch running: the one that the chunk before has left, or a new one.
func (d *download) stream(ctx context.Context, h *host, c *chunk, alone bool) (*stream, error) {
	if alone && d.kept != nil {
		s := d.kept
		d.kept = nil
		if s.host == h && s.pos <= c.pos {
			s.watch.start()
			return s, nil
		}
		s.close()
	}
	return d.open(ctx, h, c, alone || c.pos == 0 && c.end == d.size)
}

// keep leaves a body to the next chunk. Only the chunk whose turn it is does so.
func (d *download) keep(s *stream) {
	if d.kept != nil {
		d.kept.close() // of a host that was left
	}
	d.kept = s
}

func (d *download) open(ctx context.Context, h *host, c *chunk, whole bool) (*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{
		host: h, ctx: ctx, cancel: cancel,
		watch: &watch{limit: d.options.StallTime, rate: d.options.StallRate, end: cancel},
	}
	first, last := c.pos, c.end-1
	if whole {
		first, last = 0, -1
	}
	start := time.Now()
	s.watch.start()
	body, info, err := h.Range(ctx, first, last)
	if err != nil {
		s.watch.stop()
		err = because(ctx, err)
		cancel(nil)
		return nil, err
	}
	s.body = body
	err = s.accept(info, first, last, d.size)
	if whole && errors.Is(err, errRange) {
		err = fmt.Errorf("%w, nor the whole blob: %w", err, errs.Invalid)
	}
	if err == nil && !info.Partial && !whole {
		d.alone(h)
		select {
		case <-c.before: // it is this chunk's turn anyway
		default:
			err = errRange
		}
	}
	if err != nil {
		s.watch.stop()
		s.close()
		return nil, err
	}
	if info.Partial {
		d.mu.Lock()
		d.pace.answered(time.Since(start), time.Now())
		d.mu.Unlock()
		d.stir()
	}
	s.watch.stop() // what the answer took does not count against the body
	s.watch.start()
	return s, nil
}

// accept checks what a host says of its body against what was asked for, all of
// the blob where last is negative.
func (s *stream) accept(i Info, first, last, size int64) error {
	if !i.Partial {
		s.pos, s.end = 0, size
		if i.Length >= 0 && i.Length != size {
			return fmt.Errorf("it has %d bytes of a blob of %d: %w", i.Length, size, errs.Invalid)
		}
		return nil
	}
	if i.Total >= 0 && i.Total != size {
		return fmt.Errorf("it has %d bytes of a blob of %d: %w", i.Total, size, errs.Invalid)
	}
	if last < 0 {
		last = size - 1
	}
	if i.First != first || i.Last < first || i.Last > last || i.Length >= 0 && i.Length != i.Last-i.First+1 {
		return errRange
	}
	s.pos, s.end = i.First, i.Last+1
	return nil
}

// close waits for what runs, of a download that was cancelled.
func (d *download) close() {
	d.running.Wait()
	d.keep(nil)
	d.memory.Close()
	d.connections.Close()
}

// pause waits between attempts.
func pause(ctx context.Context, t time.Duration) error {
	if t <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Package fetch reads one blob from several hosts, over several connections, as
// one stream.
//
// It knows nothing of registries: a Source opens ranges of the blob on one host,
// and Open makes a reader of a list of them, mirrors first. The blob is cut into
// chunks, which come in parallel and leave in order:
//
//	            ┌ chunk ─ connection ─┐
//	feed ───────┤ chunk ─ connection  ├──▶ Read
//	 memory,    └ chunk ─ connection ─┘
//	 connections
//
// A download begins with one connection and adds more while the whole becomes
// faster by that. No more chunks have begun and were not read than there may be
// connections. A host that ignores ranges, or answers them wrongly, is read
// in one stream. What fails is tried again from the byte that was reached, with
// growing pauses or after the time that the host asks for; a host that fails for
// good is left for the next one, in the middle of a chunk too, and stays left.
// No byte is asked for twice unless it did not come.
//
// Nothing is verified but that sizes and positions are what was asked for: who
// reads knows the digest. Memory and connections come from budgets that all
// downloads of a Fetcher share, so that a small blob finds room beside big ones.
// A chunk takes its memory before its connection, so a connection never waits for
// who reads, and what is given out always comes back.
//
// Each reader owns one goroutine and one for each chunk that comes; Close waits
// for them. download.mu guards the pace and the hosts, and nothing slow.
package fetch

import (
	"context"
	"io"
	"sync"
	"time"
)

// Source has the blob, on one host. Its methods are called concurrently.
type Source interface {
	// Host names it for people.
	Host() string
	// Range opens the bytes from first to last, both included; all of the blob
	// where last is negative. It returns once the host has answered and honours
	// ctx, which also ends the body. An error of a kind that time does not heal
	// (NotFound, Denied, Invalid, Unsupported) ends the use of this source; a Busy
	// says when to come back; any other is tried again.
	Range(ctx context.Context, first, last int64) (io.ReadCloser, Info, error)
}

// Info is what a host says of a body that it sends.
type Info struct {
	// Partial says that the body is a range; else it is the whole blob, whatever
	// was asked for.
	Partial bool
	// First, Last and Total are those of Content-Range; Total is negative where
	// the host does not know it.
	First, Last, Total int64
	// Length of the body; negative where the host does not say.
	Length int64
}

// Options configures a Fetcher. The zero value works.
type Options struct {
	// Memory bounds the bytes that have come, or are about to, and were not read;
	// default a budget of 64 MiB. Others may take from it too.
	Memory *Budget
	// Connections bounds how many there are; default a budget of 24.
	Connections *Budget
	// Chunk is how many bytes one request asks for; default 4 MiB, less where
	// Memory is small.
	Chunk int64
	// PerBlob bounds the connections of one blob; default 16.
	PerBlob int
	// Retries is how often a chunk is tried again on one host without having come
	// on; default 5, negative for none.
	Retries int
	// StallTime and StallRate say what stands still: a connection that was
	// waited on for StallTime and brought less than StallRate bytes for each second
	// of it. Default one minute and 1 KiB.
	StallTime time.Duration
	StallRate int64
	// MaxWait bounds what Retry-After may ask for; default one minute. A host that
	// wants longer has failed.
	MaxWait time.Duration
}

func (o Options) withDefaults() Options {
	if o.Memory == nil {
		o.Memory = NewBudget(64 << 20)
	}
	if o.Connections == nil {
		o.Connections = NewBudget(24)
	}
	if o.Chunk == 0 {
		o.Chunk = 4 << 20
	}
	o.Chunk = max(1, min(o.Chunk, o.Memory.total/8))
	if o.PerBlob == 0 {
		o.PerBlob = 16
	}
	switch {
	case o.Retries == 0:
		o.Retries = 5
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.StallTime == 0 {
		o.StallTime = time.Minute
	}
	if o.StallRate == 0 {
		o.StallRate = 1 << 10
	}
	if o.MaxWait == 0 {
		o.MaxWait = time.Minute
	}
	return o
}

// Fetcher opens blobs. Its methods are safe for concurrent use.
type Fetcher struct {
	options Options
	pool    pool
}

// New returns a Fetcher.
func New(o Options) *Fetcher { return &Fetcher{options: o.withDefaults()} }

// Open returns the size bytes of a blob from an offset on. It asks for nothing
// before the first Read; the first source is preferred. Reads fail when ctx ends.
// An error of the hosts is a *Failure. The reader is for one goroutine; any may
// close it.
func (f *Fetcher) Open(ctx context.Context, sources []Source, size, offset int64) *Reader {
	ctx, cancel := context.WithCancelCause(ctx)
	d := &download{
		options: f.options, size: size, pool: &f.pool, cancel: cancel,
		memory: f.options.Memory.Share(), connections: f.options.Connections.Share(),
		queue: make(chan *chunk, f.options.Memory.total/f.options.Chunk+1),
		wake:  make(chan struct{}, 1),
		pace:  pace{limit: 1, most: f.options.PerBlob},
	}
	for _, s := range sources {
		d.hosts = append(d.hosts, &host{Source: s})
	}
	return &Reader{ctx: ctx, download: d, pos: offset}
}

// Reader reads one blob.
type Reader struct {
	ctx      context.Context //nolint:containedctx // of this one blob
	download *download

	reading sync.Mutex // held by Read; guards the rest
	started bool
	pos     int64
	chunk   *chunk
	block   []byte // of it, what was not read yet
	whole   []byte // the block
	err     error
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if len(r.block) == 0 {
		if r.err == nil {
			r.err = r.next()
		}
		if r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.block)
	r.block = r.block[n:]
	r.pos += int64(n)
	if len(r.block) == 0 {
		r.download.memory.Release(int64(len(r.whole)))
		r.download.pool.give(r.whole)
		r.whole = nil
	}
	return n, nil
}

// next waits for the next block.
func (r *Reader) next() error {
	d := r.download
	if !r.started {
		r.started = true
		from := r.pos
		d.running.Go(func() { d.feed(r.ctx, from) })
	}
	for r.pos < d.size {
		if r.chunk == nil {
			c, err := receive(r.ctx, d.queue)
			if err != nil {
				return err
			}
			r.chunk = c
		}
		b, err := receive(r.ctx, r.chunk.blocks)
		if err != nil {
			return err
		}
		if b == nil { // its end
			r.chunk = nil
			d.read()
			continue
		}
		r.block, r.whole = b, b
		return nil
	}
	return io.EOF
}

// receive takes what has come even where ctx has ended: what is before a failure
// is good.
func receive[T any](ctx context.Context, c <-chan T) (T, error) {
	select {
	case v := <-c:
		return v, nil
	default:
	}
	select {
	case v := <-c:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// Served returns the hosts that bytes of the blob came from.
func (r *Reader) Served() []string { return r.download.served() }

// Close ends the download, and a Read that waits for it, and returns once nothing
// of it runs.
func (r *Reader) Close() error {
	r.download.cancel(io.ErrClosedPipe)
	r.reading.Lock()
	defer r.reading.Unlock()
	r.started, r.block, r.err = true, nil, io.ErrClosedPipe
	r.download.close()
	return nil
}

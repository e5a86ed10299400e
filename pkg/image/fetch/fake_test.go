package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/image/fetch"
)

const mib = 1 << 20

// pattern is what blobs are made of, again and again; no power of two long.
var pattern = func() []byte {
	b := make([]byte, 65521)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b) // never fails
	return b
}()

// content writes what a blob has from an offset on.
func content(p []byte, offset int64) {
	for n := 0; n < len(p); {
		n += copy(p[n:], pattern[(offset+int64(n))%int64(len(pattern)):])
	}
}

// request is what a fake host was asked for.
type request struct{ first, last int64 }

// fake is a host that has a blob. Its fields are set before it is asked.
type fake struct {
	name    string
	size    int64
	latency time.Duration
	rate    int64 // bytes a second of each connection; 0: at once
	whole   bool  // ignores ranges
	// answer, if not nil, may change the n-th answer (from 1), or fail it.
	answer func(n int, r request, b *body) error

	mu       sync.Mutex
	requests []request
	open     int // bodies
	most     int
	sent     int64
}

// body is what a fake sends.
type body struct {
	fetch.Info
	from, end int64 // what is really sent; after end comes io.EOF
	fail      error // instead of it
	stalls    bool  // after stall bytes
	stall     int64
	rate      int64

	ctx    context.Context
	fake   *fake
	closed bool
}

func (f *fake) Host() string { return f.name }

func (f *fake) Range(ctx context.Context, first, last int64) (io.ReadCloser, fetch.Info, error) {
	f.mu.Lock()
	f.requests = append(f.requests, request{first, last})
	n := len(f.requests)
	f.open++
	f.most = max(f.most, f.open)
	f.mu.Unlock()
	b := &body{ctx: ctx, fake: f, rate: f.rate, end: f.size, Info: fetch.Info{Total: f.size, Length: f.size}}
	if last >= 0 && !f.whole {
		b.from, b.end = first, min(last+1, f.size)
		b.Info = fetch.Info{Partial: true, First: first, Last: b.end - 1, Total: f.size, Length: b.end - first}
	}
	err := after(ctx, f.latency)
	if err == nil && f.answer != nil {
		err = f.answer(n, request{first, last}, b)
	}
	if err != nil {
		_ = b.Close() // never fails
		return nil, fetch.Info{}, err
	}
	return b, b.Info, nil
}

// after waits, as something that takes time does.
func after(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *body) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), 64<<10, b.end-b.from)]
	if b.stalls {
		if p = p[:min(int64(len(p)), b.stall)]; len(p) == 0 {
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		b.stall -= int64(len(p))
	}
	if len(p) == 0 {
		return 0, errors.Join(b.fail, errOf(b.fail == nil, io.EOF))
	}
	if b.rate > 0 {
		if err := after(b.ctx, time.Duration(len(p))*time.Second/time.Duration(b.rate)); err != nil {
			return 0, err
		}
	}
	content(p, b.from)
	b.from += int64(len(p))
	b.fake.mu.Lock()
	b.fake.sent += int64(len(p))
	b.fake.mu.Unlock()
	return len(p), b.ctx.Err()
}

func errOf(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

func (b *body) Close() error {
	b.fake.mu.Lock()
	defer b.fake.mu.Unlock()
	if !b.closed {
		b.fake.open--
	}
	b.closed = true
	return nil
}

// once fails the test where the requests asked for a byte twice.
func (f *fake) once(t *testing.T) {
	t.Helper()
	seen := map[int64]bool{}
	for _, r := range f.requests {
		if seen[r.first] {
			t.Errorf("%s: asked twice for byte %d: %v", f.name, r.first, f.requests)
		}
		seen[r.first] = true
	}
	if f.sent != f.size {
		t.Errorf("%s: sent %d bytes of a blob of %d", f.name, f.sent, f.size)
	}
}

// read reads a blob to its end and compares it with what it must be.
func read(r io.Reader, size, offset int64) error {
	got, want := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := r.Read(got)
		content(want[:n], offset)
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("wrong bytes after %d", offset)
		}
		offset += int64(n)
		switch {
		case err == io.EOF && offset != size:
			return fmt.Errorf("the end came at %d of %d", offset, size)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// fetched fetches a blob, and checks that all memory was given back.
func fetched(ctx context.Context, t *testing.T, o fetch.Options, offset int64, hosts ...*fake) error {
	t.Helper()
	if o.Memory == nil {
		o.Memory = fetch.NewBudget(64 * mib)
	}
	if o.Connections == nil {
		o.Connections = fetch.NewBudget(24)
	}
	var sources []fetch.Source
	for _, h := range hosts {
		sources = append(sources, h)
	}
	size := hosts[0].size
	r := fetch.New(o).Open(ctx, sources, size, offset)
	err := read(r, size, offset)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := o.Memory.Share().Acquire(t.Context(), 64*mib); err != nil {
		t.Error(err)
	}
	if err := o.Connections.Share().Acquire(t.Context(), 24); err != nil {
		t.Error(err)
	}
	for _, h := range hosts {
		if h.open != 0 {
			t.Errorf("%s: %d bodies are open", h.name, h.open)
		}
	}
	return err
}

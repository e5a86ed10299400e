package inflate

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/buffer"
)

const (
	// maxWindow bounds the memory that a zstd frame may ask for; `zstd --long`
	// uses 128 MiB.
	maxWindow = 128 << 20
	// freeWindow is what each stream has whatever the others have: encoders do not
	// ask for more unless they are told to.
	freeWindow = 8 << 20
	// patience is how long a stream waits for a window.
	patience = 10 * time.Minute
)

// Pool is the memory of the streams that are decoded beside each other, within one
// budget but for what each has whatever the others have: a window of 8 MiB, and its
// own buffers. It is safe for concurrent use.
type Pool struct {
	memory  *buffer.Pool
	bounds  bounds
	batches sync.Pool // of *batch

	mu    sync.Mutex
	users int             // streams that have a decoder
	kept  []*zstd.Decoder // with windows of freeWindow or less, while there are users
}

// NewPool returns a pool with a budget in bytes.
func NewPool(budget int64) *Pool {
	return &Pool{memory: buffer.New(budget), bounds: bounds{packed: 4 << 20, plain: 8 << 20, frames: 4096, batches: min(runtime.GOMAXPROCS(0), 4)}}
}

// Buffers returns the buffers of the pool's streams.
func (p *Pool) Buffers() *buffer.Pool { return p.memory }

// take lends a decoder. It may have its window already, so that layers one after
// the other do not make one each.
func (p *Pool) take() (*zstd.Decoder, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.kept); n > 0 {
		z := p.kept[n-1]
		p.kept = p.kept[:n-1]
		p.users++
		return z, nil
	}
	// The decoder's own goroutines cost a fifth more processor time and are no faster
	// than one.
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	p.users++
	return z, nil
}

// put takes a decoder back, and keeps it as long as another stream has one.
func (p *Pool) put(z *zstd.Decoder, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	switch {
	case p.users == 0:
		p.kept = nil
	case keep && z.Reset(nil) == nil:
		p.kept = append(p.kept, z)
	}
}

// admit waits until there is memory for a window that is larger than freeWindow.
func (p *Pool) admit(ctx context.Context, window int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no memory for a window of %d bytes: %w", window, errs.Exhausted))
	defer cancel()
	return p.memory.Charge(ctx, window)
}

package inflate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/berth-run/berth/pkg/errs"
)

// Stream opens a stream of a pool of its own, which decodes in small batches.
func Stream(r io.Reader) (*Reader, error) { return small().Stream(context.Background(), r) }

// Resume goes on with a stream of a pool of its own.
func Resume(r io.Reader, state State) (*Reader, error) {
	return small().Resume(context.Background(), r, state)
}

// small returns a pool with batches that a few frames of the corpus fill.
func small() *Pool {
	p := NewPool(32 << 20)
	p.bounds = bounds{packed: 1 << 20, plain: 700 << 10, frames: 100, batches: 3}
	return p
}

// text is more than a frame's header may be long, which is looked for as a whole.
const text = "text of a layer"

// window is a frame that asks for a window, a power of two, and holds text.
func window(size int, text string) []byte {
	b := append(append([]byte(nil), zstdMagic...), 0, byte(bits.TrailingZeros(uint(size))-10)<<3)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)<<3|1))
	return append(b[:len(b)-1], text...)
}

// held opens a stream that does not end before it is told to, and reads text of it.
func held(ctx context.Context, t *testing.T, p *Pool, text string, frames ...[]byte) (opened <-chan error, end func()) {
	t.Helper()
	r, w := io.Pipe()
	came := make(chan error, 1)
	go func() {
		z, err := p.Stream(ctx, io.MultiReader(bytes.NewReader(bytes.Join(frames, nil)), r))
		if err != nil {
			came <- err
			return
		}
		defer z.Close()
		got := make([]byte, len(text))
		if _, err = io.ReadFull(z, got); err == nil && string(got) != text {
			err = errors.New("another text")
		}
		came <- err
		_, _ = io.Copy(io.Discard, z) // until end
	}()
	synctest.Wait() // who comes first is served first
	return came, func() { _ = w.Close() }
}

// came reports whether a held stream has given its text.
func came(t *testing.T, c <-chan error) bool {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-c:
		if err != nil {
			t.Error(err)
		}
		return true
	default:
		return false
	}
}

func TestLargeWindowsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(40 << 20)
		open := func(size int) (<-chan error, func()) {
			return held(t.Context(), t, p, text, window(size, text))
		}
		first, endFirst := open(32 << 20)
		if !came(t, first) {
			t.Fatal("a window waits where there is memory")
		}
		second, endSecond := open(16 << 20)
		huge, endHuge := open(128 << 20)
		third, endThird := open(16 << 20)
		if came(t, second) || came(t, huge) || came(t, third) {
			t.Error("windows of more than the budget")
		}
		for range 3 {
			usual, endUsual := open(8 << 20)
			if !came(t, usual) {
				t.Error("a usual window waits for large ones")
			}
			defer endUsual()
		}
		endFirst()
		if !came(t, second) || came(t, huge) || came(t, third) {
			t.Error("the next window alone was to have its turn")
		}
		endSecond()
		if !came(t, huge) || came(t, third) {
			t.Error("a window of more than the budget was to be alone")
		}
		endHuge()
		if !came(t, third) {
			t.Error("a window waits after all others")
		}
		endThird()
		synctest.Wait()
		if p.memory.Short() || !p.memory.Borrow(40<<20) {
			t.Error("some of the budget is missing after all")
		}
	})
}

func TestAWaitForAWindowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(0)
		open := func(ctx context.Context) (<-chan error, func()) {
			return held(ctx, t, p, text, window(16<<20, text))
		}
		first, end := open(t.Context())
		defer end()
		if !came(t, first) {
			t.Fatal("a window waits for nobody")
		}
		ctx, cancel := context.WithCancel(t.Context())
		second, _ := open(ctx)
		if came(t, second) {
			t.Fatal("two windows where there is memory for one")
		}
		cancel()
		if err := <-second; !errors.Is(err, context.Canceled) || errors.Is(err, errs.Invalid) {
			t.Errorf("cancelled: %v", err)
		}
		third, _ := open(t.Context())
		if err := <-third; !errors.Is(err, errs.Exhausted) || errors.Is(err, errs.Invalid) {
			t.Errorf("waited too long: %v", err)
		}
	})
}

// TestStreamsOfGrowingWindowsEnd has each stream hold a window when it needs a
// larger one.
func TestStreamsOfGrowingWindowsEnd(t *testing.T) {
	p := NewPool(32 << 20)
	var frames []byte
	var want string
	for size := 1 << 20; size <= 64<<20; size *= 2 {
		frames = append(frames, window(size, "text")...)
		frames = append(frames, window(1<<10, " and ")...)
		want += "text and "
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			z, err := p.Stream(t.Context(), bytes.NewReader(frames))
			if err != nil {
				t.Error(err)
				return
			}
			defer z.Close()
			if got, err := io.ReadAll(z); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
	if !p.memory.Borrow(32 << 20) {
		t.Error("some of the budget is missing after all")
	}
}

// TestDecodersAreUsedAgain opens streams one after the other beside one that stays.
func TestDecodersAreUsedAgain(t *testing.T) {
	p := NewPool(32 << 20)
	read := func(size int) *zstdReader {
		z, err := p.Stream(t.Context(), bytes.NewReader(window(size, "text")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Next(); err != nil {
			t.Fatal(err)
		}
		return z.d.(*zstdReader)
	}
	stays := read(8 << 20)
	first := read(8 << 20)
	decoder := first.z
	first.close()
	second := read(8 << 20)
	if second.z != decoder {
		t.Error("the decoder of a stream that has ended was not used again")
	}
	large := read(16 << 20)
	large.close()
	if len(p.kept) != 0 {
		t.Error("a large window was kept")
	}
	second.close()
	if len(p.kept) != 1 {
		t.Errorf("%d decoders were kept", len(p.kept))
	}
	stays.close()
	if len(p.kept) != 0 {
		t.Error("decoders were kept for nobody")
	}
}

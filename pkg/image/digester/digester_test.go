package digester

import (
	"bytes"
	"crypto/sha256"
	_ "crypto/sha512" // go-digest finds it by registration
	"encoding"
	"hash"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

func need(t testing.TB) {
	t.Helper()
	if !usable() {
		t.Skip("no cgo, or the processor has no instructions for SHA-256")
	}
}

func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

// split writes data in pieces of random sizes, large and small.
func split(w hash.Hash, data []byte, r *rand.Rand) {
	for len(data) > 0 {
		n := min(len(data), 1+r.IntN(1<<(1+r.IntN(19))))
		_, _ = w.Write(data[:n])
		data = data[n:]
	}
}

func TestEqualToGoHoweverItIsSplit(t *testing.T) {
	var all sync.WaitGroup
	for stream := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(stream))) //nolint:gosec // test data
			h := New(digest.SHA256)
			for range 20 {
				data := noise(r.Uint64(), r.IntN(1<<20))
				kept := bytes.Clone(data)
				h.Reset()
				split(h, data, r)
				if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) || !bytes.Equal(h.Sum([]byte{1})[1:], want[:]) {
					t.Errorf("%d bytes: %x, want %x", len(data), h.Sum(nil), want)
				}
				if !bytes.Equal(kept, data) {
					t.Error("Write changed its bytes")
				}
			}
		})
	}
	all.Wait()
	if shared.leaders != 0 || shared.alone != 0 || len(shared.waiting) != 0 {
		t.Errorf("left behind: %d leaders, %d alone, %d waiting", shared.leaders, shared.alone, len(shared.waiting))
	}
}

func TestStateIsGos(t *testing.T) {
	data := noise(1, 3*step+17)
	want := sha256.Sum256(data)
	hashes := map[string]func() hash.Hash{"this": func() hash.Hash { return New(digest.SHA256) }, "Go": sha256.New}
	for first, from := range hashes {
		for second, to := range hashes {
			for _, at := range []int{0, 1, 63, 64, small, small + 1, step, 2*step + 33, len(data)} {
				h := from()
				_, _ = h.Write(data[:at])
				state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
				if err != nil {
					t.Fatal(err)
				}
				h = to()
				if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
					t.Fatal(err)
				}
				_, _ = h.Write(data[at:])
				if !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("%s to %s at %d: %x, want %x", first, second, at, h.Sum(nil), want)
				}
			}
		}
	}
}

func TestOtherAlgorithmsAreGos(t *testing.T) {
	data := noise(2, step)
	h := New(digest.SHA512)
	_, _ = h.Write(data)
	if got, want := digest.NewDigest(digest.SHA512, h), digest.SHA512.FromBytes(data); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// meet hashes two writes of whole blocks as if b had come just after a, and checks
// both against Go.
func meet(t *testing.T, a, b []byte) {
	t.Helper()
	p := &pool{}
	first, second := newPaired(p), newPaired(p)
	second.job.state, second.job.data = words(second.state()), b
	p.waiting = append(p.waiting, &second.job)
	_, _ = first.Write(a)
	if want := sha256.Sum256(a); !bytes.Equal(first.Sum(nil), want[:]) {
		t.Errorf("first: %x, want %x", first.Sum(nil), want)
	}
	if <-second.job.wake { // a was hashed before it
		p.leave(nil)
		_, _ = second.own.Write(b[:len(b)-len(second.job.data)])
		if got := words(second.state()); got != second.job.state {
			t.Errorf("second, in part: %x, want %x", second.job.state, got)
		}
		return
	}
	_, _ = second.own.Write(b)
	if got := words(second.state()); got != second.job.state {
		t.Errorf("second: %x, want %x", second.job.state, got)
	}
}

func TestWritersThatMeetAreHashedTogether(t *testing.T) {
	need(t)
	meet(t, noise(3, 40*step+1), noise(4, 3*step+64))
	meet(t, noise(3, 3*step+64), noise(4, 40*step))
}

func FuzzTwo(f *testing.F) {
	need(f)
	f.Add([]byte("a stream"), []byte("another one"), uint16(6000))
	f.Fuzz(func(t *testing.T, a, b []byte, repeat uint16) {
		if max(len(a), len(b)) > 64 {
			return
		}
		a, b = bytes.Repeat(a, int(repeat)), bytes.Repeat(b, int(repeat))
		meet(t, append(a, make([]byte, small)...), b[:len(b)/64*64])
	})
}

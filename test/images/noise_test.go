package images

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestNoiseIsTheSameFromEachOffset(t *testing.T) {
	n := Noise{Seed: 3, Size: 100_003}
	whole, err := io.ReadAll(n.Open())
	if err != nil || int64(len(whole)) != n.Size || bytes.Equal(whole[:1000], whole[1000:2000]) {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	for _, from := range []int64{0, 1, 15, 16, 17, 99_999, n.Size} {
		r := n.Open()
		if _, err := r.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, whole[from:]) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	if d, err := n.Digest(); err != nil || d != digest.FromBytes(whole) {
		t.Errorf("%s, %v", d, err)
	}
	other, err := io.ReadAll(Noise{Seed: 4, Size: n.Size}.Open())
	if err != nil || bytes.Equal(other, whole) {
		t.Errorf("another seed: %v", err)
	}
}

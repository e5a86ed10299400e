package stream

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
)

// TestLayersOfHugeWindowsEnd pulls layers at once that need more memory together
// than there is, some of them alone, beside usual ones.
func TestLayersOfHugeWindowsEnd(t *testing.T) {
	plain, _ := layerBytes(t)
	pool := inflate.NewPool(32 << 20)
	var all sync.WaitGroup
	for _, size := range []int{64 << 20, 16 << 20, 64 << 20, 16 << 20, 32 << 20, 8 << 20, 64 << 20, 1 << 20} {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b, zstd.WithWindowSize(size))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			l, err := Open(t.Context(), pool, Source{Blob: described(b.Bytes()), Open: (&source{data: b.Bytes()}).open}, layer.Mark{})
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()
			got, err := io.ReadAll(l)
			if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, plain) {
				t.Errorf("window of %d: %d bytes, %v", size, len(got), err)
			}
		})
	}
	all.Wait()
	if !pool.Buffers().Borrow(32 << 20) {
		t.Error("some of the budget is missing after all")
	}
}

package inflate

import (
	"bytes"
	"io"
	"os"
	"testing"
)

// BenchmarkZstd decodes the zstd file that BERTH_BENCH_LAYER names, one frame after
// the other and in batches.
func BenchmarkZstd(b *testing.B) {
	path := os.Getenv("BERTH_BENCH_LAYER")
	if path == "" {
		b.Skip("BERTH_BENCH_LAYER names no file")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	if !bytes.HasPrefix(data, zstdMagic) && !skippable(data) {
		b.Skip("it is not zstd")
	}
	for name, budget := range map[string]int64{"one by one": 0, "batches": 32 << 20} {
		b.Run(name, func(b *testing.B) {
			pool := NewPool(budget)
			before := cpu(b)
			for b.Loop() {
				z, err := pool.Stream(b.Context(), bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, z)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
				_ = z.Close()
			}
			b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-s/op")
		})
	}
}

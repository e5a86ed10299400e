package inflate

import (
	"bytes"
	"io"
	"os"
	"syscall"
	"testing"
)

// BenchmarkGzip decodes the gzip file that BERTH_BENCH_LAYER names, or else all of
// the corpus.
func BenchmarkGzip(b *testing.B) {
	streams := [][]byte{}
	if path := os.Getenv("BERTH_BENCH_LAYER"); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		streams = append(streams, data)
	} else {
		for _, s := range corpus(b) {
			streams = append(streams, s.packed)
		}
	}
	for name, open := range decoders {
		b.Run(name, func(b *testing.B) {
			before := cpu(b)
			for b.Loop() {
				var plain int64
				for _, s := range streams {
					z, err := opened(bytes.NewReader(s), open)
					if err != nil {
						b.Fatal(err)
					}
					n, err := io.Copy(io.Discard, z)
					if err != nil {
						b.Fatal(err)
					}
					plain += n
				}
				b.SetBytes(plain)
			}
			b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-s/op")
		})
	}
}

// cpu returns the seconds of processor time that this process has taken.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

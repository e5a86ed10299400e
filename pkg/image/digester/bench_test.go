package digester

import (
	"crypto/sha256"
	"hash"
	"sync"
	"syscall"
	"testing"
)

// BenchmarkStreams hashes four streams beside each other.
func BenchmarkStreams(b *testing.B) {
	data := noise(1, 256<<10)
	for name, open := range map[string]func() hash.Hash{"Go": sha256.New, "paired": func() hash.Hash { return newPaired(&shared) }} {
		b.Run(name, func(b *testing.B) {
			need(b)
			b.SetBytes(4 * int64(len(data)))
			before := cpu(b)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					h := open()
					for range b.N {
						_, _ = h.Write(data)
					}
				})
			}
			all.Wait()
			b.ReportMetric((cpu(b)-before)/float64(b.N)*1e6, "cpu-us/op")
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

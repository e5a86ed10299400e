package network

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// BenchmarkPod measures Attach and Detach of pods that publish one port, alone
// and eight at once.
func BenchmarkPod(b *testing.B) {
	for name, start := range map[string]func(testing.TB) *Service{
		"typical": openTypical,
		"builtin": func(t testing.TB) *Service { return openBuiltin(t, Builtin{}) },
	} {
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", name, workers), func(b *testing.B) {
				host(b)
				s := start(b)
				b.ResetTimer()
				attachMany(b, s, workers)
			})
		}
	}
}

func attachMany(b *testing.B, s *Service, workers int) {
	reqs := make([]AttachRequest, b.N)
	for i := range reqs {
		reqs[i] = pod(newNetNS(b), fmt.Sprintf("pod%d", i))
		reqs[i].Ports = []PortMapping{{ContainerPort: 80, HostPort: int32(10000 + i)}}
	}
	each := func(f func(AttachRequest) error) time.Duration {
		began := time.Now()
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := w; i < len(reqs); i += workers {
					if err := f(reqs[i]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		return time.Since(began) / time.Duration(b.N)
	}
	b.ResetTimer()
	up := each(func(r AttachRequest) error { _, err := s.Attach(b.Context(), r); return err })
	down := each(func(r AttachRequest) error { return s.Detach(b.Context(), r.PodID) })
	b.ReportMetric(float64(up.Microseconds())/1000, "ms/attach")
	b.ReportMetric(float64(down.Microseconds())/1000, "ms/detach")
}

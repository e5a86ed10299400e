package crash

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

const (
	mib = 1 << 20
	// fetchChunk is what one request asks for: no more may come twice for each
	// connection. Where the disk stands still, all of that is there and waits, beside
	// what is between: 2 MiB packed, 2 MiB plain, and the step of the marks.
	fetchChunk, between = 4 * mib, 5 * mib
)

// meter counts what a registry sends, and how many answers are under way at most.
type meter struct {
	registry         registry.Registry
	sent             atomic.Int64
	underWay, atMost atomic.Int64
}

// ServeHTTP implements http.Handler.
func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		m.registry.ServeHTTP(w, r)
		return
	}
	now := m.underWay.Add(1)
	defer m.underWay.Add(-1)
	for most := m.atMost.Load(); now > most && !m.atMost.CompareAndSwap(most, now); most = m.atMost.Load() {
	}
	m.registry.ServeHTTP(metered{w, &m.sent}, r)
}

type metered struct {
	http.ResponseWriter
	sent *atomic.Int64
}

// Write implements io.Writer.
func (m metered) Write(p []byte) (int, error) {
	n, err := m.ResponseWriter.Write(p)
	m.sent.Add(int64(n))
	return n, err
}

func TestAPullThatWasKilledGoesOnWhereItWas(t *testing.T) {
	data := make([]byte, 128*mib)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data) // never fails
	i, err := images.Busybox()
	must(t, err)
	i.Layers = append(i.Layers, images.Layer{Files: []images.File{{Name: "weights", Data: data}}})
	b, err := i.Build()
	must(t, err)
	size := int64(0)
	for _, l := range b.Layers {
		size += l.Size
	}
	m := &meter{registry: registry.Registry{Line: registry.Line{Bandwidth: 16 * mib}}}
	m.registry.Add("large", "1", b)
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	image := &cri.ImageSpec{Image: strings.TrimPrefix(server.URL, "http://") + "/large:1"}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := berth.Images.PullImage(ctx, &cri.PullImageRequest{Image: image})
		failed <- err
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for m.sent.Load() < size*3/4 {
		select {
		case err := <-failed:
			t.Fatalf("the pull ended early: %v", err)
		case <-tick.C:
		}
	}
	must(t, berth.Kill())
	if err := <-failed; err == nil {
		t.Fatal("the pull outlived berthd")
	}
	server.CloseClientConnections()
	first := m.sent.Load()
	must(t, berth.Start())
	_, err = berth.Images.PullImage(ctx, &cri.PullImageRequest{Image: image})
	must(t, err)
	again, most := m.sent.Load()-size, m.atMost.Load()
	t.Logf("%d MiB of %d had come, %d MiB came twice, over %d connections", first/mib, size/mib, again/mib, most)
	if limit := most*fetchChunk + between; again > limit {
		t.Errorf("%d bytes came twice, which is more than %d", again, limit)
	}
	if again >= first {
		t.Error("the pull began anew")
	}
	_, err = berth.Images.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: image})
	must(t, err)
}

package image_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/registry"
	testregistry "github.com/berth-run/berth/test/registry"
)

func TestWhatComesFromRegistriesIsCounted(t *testing.T) {
	s, b := service(t), build(t, sample("counted"))
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: serve(t, nil).Put("app", "1", b)}); err != nil {
		t.Fatal(err)
	}
	want := int64(len(b.Blobs[b.Config]))
	for _, l := range b.Layers {
		want += l.Size
	}
	if got := s.Received(); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}

func TestDownloadsChangeWhileTheServiceRuns(t *testing.T) {
	s := service(t)
	b := build(t, sample("new"))
	still := make(chan struct{})
	r := serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, b.Layers[0].Digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(b.Layers[0].Size))
		_, _ = w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		select {
		case <-still:
		case <-req.Context().Done():
		}
		return true
	}})
	defer close(still)
	name := r.Put("still", "1", b)
	s.SetDownloads(registry.Options{StallTimeout: 20 * time.Millisecond, MaxRetries: -1}, 1)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Pull(t.Context(), image.PullRequest{Ref: name})
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "stalled") {
			t.Errorf("a download that stood still ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the old stall timeout holds")
	}
}

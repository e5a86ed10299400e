package image_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/testutil"
)

func TestBlobsAreFetchedOnceForAllWhoWantThem(t *testing.T) {
	s := service(t)
	// Two names of one image, and two images that share a layer with it.
	all := []*images.Built{build(t, sample("x")), build(t, sample("x")), build(t, sample("y")), build(t, sample("z"))}
	held := make(chan struct{})
	reg := serve(t, &testregistry.Registry{Hook: func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-held
		}
		return false
	}})
	var wg sync.WaitGroup
	for n, b := range all {
		ref := reg.Put(fmt.Sprint("app", n), "v1", b)
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); err != nil {
				t.Error(err)
			}
		})
	}
	testutil.Await(t, 20*time.Second, func() error {
		for n := range all {
			if reg.Requests(http.MethodGet, fmt.Sprintf("/v2/app%d/manifests/v1", n)) == 0 {
				return errors.New("a pull has not begun")
			}
		}
		return nil
	})
	close(held)
	wg.Wait()
	b := all[0]
	for _, d := range []digest.Digest{b.Config, b.Layers[0].Digest, b.Layers[1].Digest} {
		fetched := 0
		for n := range all {
			fetched += reg.Requests(http.MethodGet, fmt.Sprintf("/v2/app%d/blobs/%s", n, d))
		}
		if fetched != 1 {
			t.Errorf("%s was fetched %d times", d, fetched)
		}
	}
}

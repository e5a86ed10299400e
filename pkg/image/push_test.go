package image_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/layer"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/testutil"
)

// phases collects what a push tells.
type phases struct {
	mu   sync.Mutex
	seen []string
}

func (p *phases) told(m image.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.seen, m.Phase) {
		p.seen = append(p.seen, m.Phase)
	}
}

// pushed pushes an image under a name that it gets, and returns what was told.
func pushed(t *testing.T, s *image.Service, from string, r image.PushRequest) (string, []string) {
	t.Helper()
	if err := s.Tag(t.Context(), from, r.Ref); err != nil {
		t.Fatal(err)
	}
	var p phases
	r.Progress = p.told
	d, err := s.Push(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d.String(), p.seen
}

func TestPushBringsWhatTheRegistryLacks(t *testing.T) {
	testutil.Root(t)
	needEROFS(t)
	s := openWith(t, t.TempDir(), image.Options{LayerBackend: layer.EROFS})
	b := build(t, sample("pushed"))
	near := serve(t, &testregistry.Registry{Strict: true})
	ref := near.Put("team/app", "v1", b)
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	// The registry has the layers elsewhere: nothing is packed, and the manifest stays.
	d, seen := pushed(t, s, ref, image.PushRequest{Ref: near.Host + "/other:v1"})
	if d != b.Root.Digest.String() || !slices.Contains(seen, "mounted") || slices.Contains(seen, "packing") {
		t.Errorf("to the same registry: %s, %v", d, seen)
	}
	if i, err := s.Get(near.Host + "/other@" + d); err != nil || i.ID != b.Config {
		t.Errorf("by its digest there: %v, %v", i.ID, err)
	}
	for _, compression := range []string{"", "zstd", "none"} {
		far := serve(t, &testregistry.Registry{Strict: true})
		name := far.Host + "/app:v1"
		first, seen := pushed(t, s, ref, image.PushRequest{Ref: name, Compression: compression})
		if first == b.Root.Digest.String() || !slices.Contains(seen, "done") {
			t.Errorf("%s: %s, %v", compression, first, seen)
		}
		again, seen := pushed(t, s, ref, image.PushRequest{Ref: name, Compression: compression})
		if again != first || slices.Contains(seen, "uploading") || slices.Contains(seen, "done") {
			t.Errorf("%s again: %s, %v", compression, again, seen)
		}
		other := service(t)
		i, err := other.Pull(t.Context(), image.PullRequest{Ref: name})
		if err != nil || i.ID != b.Config || i.Digest.String() != first {
			t.Errorf("%s: pulled %s %s, %v", compression, i.ID, i.Digest, err)
		}
	}
}

func TestPushOfWhatIsKeptIsTheSame(t *testing.T) {
	s := service(t) // keeps blobs
	b := build(t, sample("kept"))
	near := serve(t, &testregistry.Registry{})
	ref := near.Put("app", "v1", b)
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	far := serve(t, &testregistry.Registry{Strict: true})
	if d, seen := pushed(t, s, ref, image.PushRequest{Ref: far.Host + "/app:v1"}); d != b.Root.Digest.String() {
		t.Errorf("got %s, %v", d, seen)
	}
}

func TestPushTellsWhatItCannotDo(t *testing.T) {
	testutil.Root(t)
	s := openWith(t, t.TempDir(), image.Options{LayerBackend: layer.Directory})
	i := loaded(t, s, "app:v1", sample("directories"))
	var manifests int
	reg := serve(t, &testregistry.Registry{Hook: func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			manifests++
		}
		return false
	}})
	name := reg.Host + "/app:v1"
	if err := s.Tag(t.Context(), "app:v1", name); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		r    image.PushRequest
		kind error
		says string
	}{
		"absent":              {image.PushRequest{Ref: reg.Host + "/none:1"}, errs.NotFound, "none"},
		"an id":               {image.PushRequest{Ref: i.ID.String()}, errs.Invalid, "berth tag"},
		"no such compression": {image.PushRequest{Ref: name, Compression: "xz"}, errs.Invalid, "xz"},
		"directories":         {image.PushRequest{Ref: name}, errs.Unsupported, "keep_blobs = true"},
	} {
		if _, err := s.Push(t.Context(), c.r); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if manifests > 0 {
		t.Errorf("%d manifests came", manifests)
	}
}

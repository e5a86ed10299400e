package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

func TestWhatIsNotThePromisedContentIsRefused(t *testing.T) {
	for name, damage := range map[string]func(*registry.Server, *images.Built){
		"a layer's bytes": func(s *registry.Server, b *images.Built) {
			data := slices.Clone(b.Blobs[b.Layers[0].Digest])
			data[len(data)/2] ^= 1
			s.SetBlob(b.Layers[0].Digest, data)
		},
		"another layer": func(s *registry.Server, b *images.Built) { s.SetBlob(b.Layers[0].Digest, b.Blobs[b.Layers[1].Digest]) },
		"a layer cut": func(s *registry.Server, b *images.Built) {
			s.SetBlob(b.Layers[1].Digest, b.Blobs[b.Layers[1].Digest][:20])
		},
		"a layer and more": func(s *registry.Server, b *images.Built) {
			s.SetBlob(b.Layers[1].Digest, append(slices.Clone(b.Blobs[b.Layers[1].Digest]), "more"...))
		},
		"the config": func(s *registry.Server, b *images.Built) {
			s.SetBlob(b.Config, []byte(strings.Replace(string(b.Blobs[b.Config]), "linux", "Linux", 1)))
		},
	} {
		s := startRegistry(t, nil)
		// Layers of its own only: those that are here are not fetched again.
		b := shipped(t, func(i *images.Image) {
			i.Layers[0].Files = append(i.Layers[0].Files, images.File{Name: "other-mark", Data: i.Layers[1].Files[0].Data})
		})
		ref := s.Put("app", "1", b)
		damage(s, b)
		if _, err := pull(t.Context(), ref, nil); err == nil {
			t.Errorf("%s: the pull succeeds", name)
		}
		if i := imageStatus(t, ref); i != nil {
			t.Errorf("%s: visible is %v", name, i)
		}
		for d, data := range b.Blobs {
			s.SetBlob(d, data)
		}
		mustPull(t, ref)
		config := sh("cat /mark")
		config.Image.Image = ref
		if out := runPod(t).start(config).output(); !strings.HasPrefix(out, "mark ") {
			t.Errorf("%s: mended, the container says %q", name, out)
		}
	}
}

func TestAManifestThatIsNotTheAskedOneIsRefused(t *testing.T) {
	other := shipped(t)
	r := &registry.Registry{}
	s := startRegistry(t, r)
	b := shipped(t)
	s.Put("app", "1", b)
	s.Put("app", "other", other)
	r.Hook = func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, "/manifests/"+b.Root.Digest.String()) {
			return false
		}
		w.Header().Set("Content-Type", other.Root.MediaType)
		w.Header().Set("Docker-Content-Digest", b.Root.Digest.String())
		_, _ = w.Write(other.Blobs[other.Root.Digest]) // the client sees a cut answer
		return true
	}
	if id, err := pull(t.Context(), s.Host+"/app@"+b.Root.Digest.String(), nil); err == nil {
		t.Errorf("pulled %s", id)
	}
}

func TestPullErrorsSayWhatIsWrong(t *testing.T) {
	s := startRegistry(t, nil)
	s.Put("app", "1", shipped(t))
	gone := registry.Start(nil)
	gone.Close()
	for name, c := range map[string]struct {
		ref  string
		want codes.Code
		text string
	}{
		"no tag":        {s.Host + "/app:2", codes.NotFound, "app:2"},
		"no repository": {s.Host + "/none:1", codes.NotFound, "none:1"},
		"no digest":     {s.Host + "/app@" + digest.FromString("x").String(), codes.NotFound, "sha256"},
		"no registry":   {gone.Host + "/app:1", codes.Unknown, "RegistryUnavailable"},
		"upper case":    {s.Host + "/App:1", codes.InvalidArgument, "App"},
		"short digest":  {s.Host + "/app@sha256:12", codes.InvalidArgument, "sha256:12"},
		"empty":         {"", codes.InvalidArgument, ""},
		"up the tree":   {s.Host + "/../../app:1", codes.InvalidArgument, ".."},
	} {
		if _, err := pull(t.Context(), c.ref, nil); code(err) != c.want || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := berth.Images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: s.Host + "/app:1", RuntimeHandler: "kata"}})
	if code(err) != codes.NotFound || !strings.Contains(err.Error(), "kata") {
		t.Errorf("handler: %v", err)
	}
}

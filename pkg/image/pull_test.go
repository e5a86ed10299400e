package image_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
	"github.com/berth-run/berth/test/testutil"
)

func serve(t testing.TB, r *testregistry.Registry) *testregistry.Server {
	t.Helper()
	s := testregistry.Start(r)
	t.Cleanup(s.Close)
	return s
}

func build(t testing.TB, i images.Image) *images.Built {
	t.Helper()
	b, err := i.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nothing fails the test if the service shows or keeps anything.
func nothing(t testing.TB, s *image.Service) {
	t.Helper()
	if all := s.List(); len(all) != 0 {
		t.Errorf("listed: %v", all)
	}
	if _, err := s.Check(context.Background(), true, nil); err != nil {
		t.Error(err)
	}
	info, err := s.FsInfo(context.Background())
	if err != nil || info.UsedBytes != 0 {
		t.Errorf("%d bytes are kept, %v", info.UsedBytes, err)
	}
	// The files go behind the answer of a removal.
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := filepath.Glob(filepath.Join(info.Mountpoint, "layers", ".ingest-*"))
		if err == nil && len(left) == 0 {
			return
		}
		select {
		case <-deadline:
			t.Errorf("left over: %v, %v", left, err)
			return
		case <-tick.C:
		}
	}
}

func TestPullMediaTypes(t *testing.T) {
	reg := serve(t, nil)
	for _, c := range []images.Compression{images.Gzip, images.Zstd, images.Plain} {
		for _, docker := range []bool{false, true} {
			t.Run(fmt.Sprintf("compression %d docker %v", c, docker), func(t *testing.T) {
				s := service(t)
				i := sample("pulled")
				i.Docker = docker
				for n := range i.Layers {
					i.Layers[n].Compression = c
				}
				b := build(t, i)
				ref := reg.Put("team/app", "v1", b)
				got, err := s.Pull(t.Context(), image.PullRequest{Ref: ref})
				if err != nil {
					t.Fatal(err)
				}
				if got.ID != b.Config || got.Digest != b.Root.Digest {
					t.Errorf("id %s, want %s; digest %s, want %s", got.ID, b.Config, got.Digest, b.Root.Digest)
				}
				root := mount(t, s, image.MountRequest{ContainerID: "c", Image: got.ID})
				if text := content(t, root, "etc/motd"); text != "pulled" {
					t.Errorf("content %q", text)
				}
				again, err := s.Pull(t.Context(), image.PullRequest{Ref: reg.Host + "/team/app@" + b.Root.Digest.String()})
				if err != nil || again.ID != got.ID {
					t.Errorf("by digest: %v, %v", again.ID, err)
				}
			})
		}
	}
}

func TestPullChoosesThePlatform(t *testing.T) {
	reg := serve(t, nil)
	other := sample("other")
	other.Platform = ispec.Platform{OS: "linux", Architecture: "s390x"}
	b, err := images.BuildIndex(other, sample("mine"))
	if err != nil {
		t.Fatal(err)
	}
	s := service(t)
	ref := reg.Put("app", "multi", b)
	i, err := s.Pull(t.Context(), image.PullRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	if i.Config.Architecture == "s390x" || len(i.RepoDigests) != 1 || !strings.HasSuffix(i.RepoDigests[0], b.Root.Digest.String()) {
		t.Errorf("%s %v", i.Config.Architecture, i.RepoDigests)
	}
	i, err = s.Pull(t.Context(), image.PullRequest{Ref: ref, Platform: &other.Platform})
	if err != nil || i.ID != b.Config {
		t.Errorf("asked for: %v, %v", i.ID, err)
	}
	_, err = s.Pull(t.Context(), image.PullRequest{Ref: ref, Platform: &ispec.Platform{OS: "plan9", Architecture: "mips"}})
	if !errors.Is(err, errs.NotFound) {
		t.Errorf("absent platform: %v", err)
	}
}

func TestPullAuthenticates(t *testing.T) {
	const user, secret = "ada", "s3cr3t-pa55"
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	for name, c := range map[string]struct {
		registry *testregistry.Registry
		auth     registry.Auth
		kind     errs.Kind
	}{
		"basic":                {&testregistry.Registry{Username: user, Password: secret}, registry.Auth{Username: user, Password: secret}, ""},
		"basic, encoded":       {&testregistry.Registry{Username: user, Password: secret}, registry.Auth{Auth: basic}, ""},
		"token":                {&testregistry.Registry{Username: user, Password: secret, Token: true}, registry.Auth{Username: user, Password: secret}, ""},
		"token for anybody":    {&testregistry.Registry{Token: true}, registry.Auth{}, ""},
		"identity token":       {&testregistry.Registry{Token: true, Username: user, RefreshToken: secret}, registry.Auth{IdentityToken: secret}, ""},
		"registry token":       {&testregistry.Registry{Token: true, Username: user}, registry.Auth{RegistryToken: testregistry.BearerToken}, ""},
		"nobody":               {&testregistry.Registry{Username: user, Password: secret}, registry.Auth{}, errs.Denied},
		"wrong password":       {&testregistry.Registry{Username: user, Password: "x"}, registry.Auth{Username: user, Password: secret}, errs.Denied},
		"wrong token password": {&testregistry.Registry{Username: user, Password: "x", Token: true}, registry.Auth{Username: user, Password: secret}, errs.Denied},
		"of another registry":  {&testregistry.Registry{Username: user, Password: secret}, registry.Auth{Username: user, Password: secret, ServerAddress: "https://elsewhere.example/v1/"}, errs.Denied},
		"not base64":           {&testregistry.Registry{Username: user, Password: secret}, registry.Auth{Auth: "%%%"}, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(t)
			reg := serve(t, c.registry)
			_, err := s.Pull(t.Context(), image.PullRequest{Ref: reg.Put("app", "v1", build(t, sample("x"))), Auth: c.auth})
			if errs.Of(err) != c.kind || (err == nil) != (c.kind == "") {
				t.Errorf("got %v, want kind %q", err, c.kind)
			}
			if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), basic)) {
				t.Errorf("the error tells the secret: %v", err)
			}
			if text := fmt.Sprintf("%v %+v %#v %s", c.auth, c.auth, c.auth, c.auth); strings.Contains(text, secret) {
				t.Errorf("printing tells the secret: %s", text)
			}
		})
	}
}

func TestPullRefusesWrongContent(t *testing.T) {
	for name, spoil := range map[string]func(r *testregistry.Server, b *images.Built){
		"last byte of a layer": func(r *testregistry.Server, b *images.Built) {
			bad := bytes.Clone(b.Blobs[b.Layers[1].Digest])
			bad[len(bad)-1] ^= 1
			r.SetBlob(b.Layers[1].Digest, bad)
		},
		"layer too short": func(r *testregistry.Server, b *images.Built) {
			r.SetBlob(b.Layers[0].Digest, b.Blobs[b.Layers[0].Digest][:40])
		},
		"layer too long": func(r *testregistry.Server, b *images.Built) {
			r.SetBlob(b.Layers[0].Digest, append(bytes.Clone(b.Blobs[b.Layers[0].Digest]), 'x'))
		},
		"config": func(r *testregistry.Server, b *images.Built) {
			r.SetBlob(b.Config, bytes.Replace(b.Blobs[b.Config], []byte("linux"), []byte("lynux"), 1))
		},
		"another layer": func(r *testregistry.Server, b *images.Built) {
			r.SetBlob(b.Layers[0].Digest, b.Blobs[b.Layers[1].Digest])
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, reg := service(t), serve(t, nil)
			b := build(t, sample("x"))
			ref := reg.Put("app", "v1", b)
			spoil(reg, b)
			if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); err == nil {
				t.Error("pulled")
			} else if k := errs.Of(err); k != errs.Invalid && k != errs.Unavailable {
				t.Errorf("kind %q: %v", k, err)
			}
			nothing(t, s)
		})
	}
}

func TestPullTruncatedBody(t *testing.T) {
	b := build(t, sample("x"))
	path := "/blobs/" + b.Layers[0].Digest.String()
	reg := serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, path) {
			return false
		}
		data := b.Blobs[b.Layers[0].Digest]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		return true
	}})
	s := service(t)
	s.SetDownloads(registry.Options{MaxRetries: -1}, 1)
	if _, err := s.Pull(t.Context(), image.PullRequest{Ref: reg.Put("app", "v1", b)}); !errors.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	nothing(t, s)
}

func TestPullErrorsHaveKinds(t *testing.T) {
	s := service(t)
	reg := serve(t, nil)
	b := build(t, sample("x"))
	reg.Put("app", "v1", b)
	closed := testregistry.Start(nil)
	closed.Close()
	for ref, kind := range map[string]errs.Kind{
		reg.Host + "/app:v2":     errs.NotFound,
		reg.Host + "/nothing:v1": errs.NotFound,
		closed.Host + "/app:v1":  errs.Unavailable,
		reg.Host + "/App:v1":     errs.Invalid,
		reg.Host + "/../app:v1":  errs.Invalid,
		reg.Host + "/app@" + digest.FromString("absent").String(): errs.NotFound,
	} {
		if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); errs.Of(err) != kind {
			t.Errorf("%s: %v, want kind %q", ref, err, kind)
		}
	}
	nothing(t, s)
}

func TestCancelledPullLeavesNothing(t *testing.T) {
	b := build(t, sample("x"))
	started := make(chan struct{}, 8)
	path := "/blobs/" + b.Layers[1].Digest.String()
	reg := serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(b.Layers[1].Size))
		_, _ = w.Write(b.Blobs[b.Layers[1].Digest][:10])
		w.(http.Flusher).Flush()
		started <- struct{}{}
		<-r.Context().Done()
		return true
	}})
	s := unclosed(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := s.Pull(ctx, image.PullRequest{Ref: reg.Put("app", "v1", b)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	nothingAfter(t, s)
}

// unclosed opens a service that the test closes itself.
func unclosed(t testing.TB) *image.Service {
	t.Helper()
	testutil.Root(t)
	dir := t.TempDir()
	s, err := image.Open(t.Context(), image.Options{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), KeepBlobs: true, LayerBackend: "auto"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nothingAfter is nothing, once the cancelled pull has ended.
func nothingAfter(t testing.TB, s *image.Service) {
	t.Helper()
	info, err := s.FsInfo(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	nothing(t, open(t, filepath.Dir(info.Mountpoint)))
}

func TestEqualPullsShareOne(t *testing.T) {
	s := service(t)
	reg := serve(t, nil)
	b := build(t, sample("x"))
	ref := reg.Put("app", "v1", b)
	var wg sync.WaitGroup
	var told atomic.Int64
	for range 8 {
		wg.Go(func() {
			i, err := s.Pull(t.Context(), image.PullRequest{Ref: ref, Progress: func(image.Progress) { told.Add(1) }})
			if err != nil || i.ID != b.Config {
				t.Errorf("%v, %v", i.ID, err)
			}
		})
	}
	wg.Wait()
	if n := reg.Requests(http.MethodGet, "/v2/app/blobs/"+b.Layers[0].Digest.String()); n != 1 {
		t.Errorf("layer was fetched %d times", n)
	}
	if told.Load() == 0 {
		t.Error("no progress")
	}
}

func TestImagesThatShareLayersPullAtOnce(t *testing.T) {
	s := service(t)
	reg := serve(t, nil)
	var wg sync.WaitGroup
	for n := range 6 {
		ref := reg.Put("app", fmt.Sprint("v", n), build(t, sample(fmt.Sprint("text", n))))
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), image.PullRequest{Ref: ref}); err != nil {
				t.Error(err)
			}
			if n%2 == 0 {
				if err := s.Remove(t.Context(), ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(s.List()) != 3 {
		t.Errorf("%d images", len(s.List()))
	}
	if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Errorf("check: %v, %v", problems, err)
	}
}

func TestOpenSetsDamagedRecordsAside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	loaded(t, s, "good:v1", sample("good"))
	bad := loaded(t, s, "bad:v1", sample("bad"))
	if err := os.WriteFile(filepath.Join(dir, "root/images/records/sha256-"+bad.ID.Encoded()+".json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if all := again.List(); len(all) != 1 || all[0].ID == bad.ID {
		t.Errorf("list: %v", all)
	}
	problems, err := again.Check(t.Context(), true, nil)
	if err != nil || len(problems) < 2 {
		t.Errorf("check: %v, %v", problems, err)
	}
	loaded(t, again, "bad:v1", sample("bad"))
	if problems, err := again.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Errorf("after repair: %v, %v", problems, err)
	}
}

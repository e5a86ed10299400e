package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
	"github.com/berth-run/berth/test/images"
	testregistry "github.com/berth-run/berth/test/registry"
)

// node is a node's files about registries.
type node struct {
	t    testing.TB
	root string
}

func newNode(t testing.TB) node { return node{t, t.TempDir()} }

func (n node) write(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) options() registry.Options {
	return registry.Options{
		MaxRetries: -1, StallTimeout: 5 * time.Second, AuthFiles: []string{filepath.Join(n.root, "auth.json")},
		Hosts: hosts.Options{CertsDirs: []string{filepath.Join(n.root, "certs.d")}, RegistriesConf: []string{filepath.Join(n.root, "registries.conf")}},
	}
}

func (n node) open(ref string, a registry.Auth) (*registry.Repository, reference.Name) {
	n.t.Helper()
	client := registry.New(n.options())
	n.t.Cleanup(client.Close)
	name, err := reference.Parse(ref)
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := client.Repository(name, a)
	if err != nil {
		n.t.Fatal(err)
	}
	return r, name
}

// pull fetches a manifest and the config that it names.
func (n node) pull(ref string, a registry.Auth) (ispec.Descriptor, error) {
	n.t.Helper()
	r, name := n.open(ref, a)
	desc, data, err := r.Manifest(n.t.Context(), name.Reference(), 1<<20)
	if err != nil {
		return desc, err
	}
	i := bytes.Index(data, []byte(`"sha256:`))
	d := digest.Digest(data[i+1 : i+1+71])
	body, err := r.Blob(n.t.Context(), ispec.Descriptor{Digest: d, Size: size(data)}, 0)
	if err != nil {
		return desc, err
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err == nil && digest.FromBytes(got) != d {
		err = errors.New("wrong bytes")
	}
	return desc, err
}

func size(manifest []byte) int64 {
	var n int64
	_, rest, _ := bytes.Cut(manifest, []byte(`"size":`))
	_, _ = fmt.Sscan(string(rest[:bytes.IndexAny(rest, ",}")]), &n) // of our own making
	return n
}

func serve(t testing.TB, r *testregistry.Registry) *testregistry.Server {
	t.Helper()
	s := testregistry.Start(r)
	t.Cleanup(s.Close)
	return s
}

func built(t testing.TB) *images.Built {
	t.Helper()
	b, err := images.Image{Config: ispec.ImageConfig{Cmd: []string{"x"}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seen are the requests that a registry got.
type seen struct {
	mu   sync.Mutex
	list []*http.Request
}

func (s *seen) hook(_ http.ResponseWriter, r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, r.Clone(context.Background()))
	return false
}

func (s *seen) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list
}

func TestPullsFallOverToTheNextServer(t *testing.T) {
	b := built(t)
	for _, c := range []brokenMirror{
		{name: "a mirror that is down"},
		{name: "a mirror that lacks the image", empty: true, mirror: func(http.ResponseWriter, *http.Request) bool { return false }},
		{name: "a mirror that fails", mirror: func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }},
		{name: "a mirror that refuses", mirror: func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }},
		{name: "a mirror that answers something else", mirror: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", ispec.MediaTypeImageManifest)
			fmt.Fprint(w, "<html>log in</html>")
			return true
		}},
		{name: "a mirror that cuts its manifests", mirror: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", ispec.MediaTypeImageManifest)
				w.Header().Set("Docker-Content-Digest", b.Root.Digest.String())
				fmt.Fprint(w, "{}")
				return true
			}
			return false
		}},
		{name: "a mirror that lacks the blobs", mirror: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/blobs/") {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			return false
		}},
	} {
		for _, kind := range []string{"hosts.toml", "registries.conf"} {
			t.Run(c.name+" in "+kind, func(t *testing.T) {
				c.test(t, kind, b)
			})
		}
	}
}

// brokenMirror is a mirror that cannot give an image.
type brokenMirror struct {
	name   string
	mirror func(w http.ResponseWriter, r *http.Request) bool // nil: is down
	empty  bool
}

// test pulls although the mirror comes first.
func (c brokenMirror) test(t *testing.T, kind string, b *images.Built) {
	upstream := serve(t, nil)
	ref := upstream.Put("team/app", "v1", b)
	mirror := testregistry.Start(&testregistry.Registry{Hook: c.mirror})
	if !c.empty {
		mirror.Put("team/app", "v1", b)
	}
	if c.mirror == nil {
		mirror.Close()
	} else {
		t.Cleanup(mirror.Close)
	}
	n := newNode(t)
	if kind == "hosts.toml" {
		n.write("certs.d/"+upstream.Host+"/hosts.toml", fmt.Sprintf("[host.\"http://%s\"]\n", mirror.Host))
	} else {
		n.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", upstream.Host, mirror.Host))
	}
	for _, r := range []string{ref, strings.TrimSuffix(ref, ":v1") + "@" + b.Root.Digest.String()} {
		if desc, err := n.pull(r, registry.Auth{}); err != nil || desc.Digest != b.Root.Digest {
			t.Errorf("%s: %v, %v", r, desc, err)
		}
	}
}

func TestAMirrorThatHasTheImageIsEnough(t *testing.T) {
	b := built(t)
	mirror := serve(t, nil)
	mirror.Put("cache/team/app", "v1", b)
	n := newNode(t)
	n.write("registries.conf", fmt.Sprintf("[[registry]]\nlocation = \"down.invalid\"\n[[registry.mirror]]\nlocation = \"%s/cache\"\n", mirror.Host))
	if desc, err := n.pull("down.invalid/team/app:v1", registry.Auth{}); err != nil || desc.Digest != b.Root.Digest {
		t.Errorf("got %v, %v", desc, err)
	}
}

func TestAFailingPullTellsWhatEachServerSaid(t *testing.T) {
	upstream, mirror := serve(t, nil), serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}})
	n := newNode(t)
	n.write("certs.d/"+upstream.Host+"/hosts.toml", fmt.Sprintf("[host.\"http://%s\"]\n", mirror.Host))
	_, err := n.pull(upstream.Host+"/team/app:v1", registry.Auth{})
	if !errors.Is(err, errs.NotFound) {
		t.Errorf("its kind is not what the registry itself says: %v", err)
	}
	if want := mirror.Host + ": 503 Service Unavailable"; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), upstream.Host+": ") {
		t.Errorf("got %v, want %s in it", err, want)
	}
}

func TestCapabilitiesAreKeptTo(t *testing.T) {
	b := built(t)
	var pulls, resolves seen
	upstream := serve(t, nil)
	puller, resolver := serve(t, &testregistry.Registry{Hook: pulls.hook}), serve(t, &testregistry.Registry{Hook: resolves.hook})
	for _, s := range []*testregistry.Server{puller, resolver} {
		s.Put("team/app", "v1", b)
	}
	n := newNode(t)
	n.write("certs.d/"+upstream.Host+"/hosts.toml", fmt.Sprintf("[host.\"http://%s\"]\ncapabilities = [\"pull\"]\n[host.\"http://%s\"]\ncapabilities = [\"resolve\"]\n", puller.Host, resolver.Host))
	if desc, err := n.pull(upstream.Host+"/team/app:v1", registry.Auth{}); err != nil || desc.Digest != b.Root.Digest {
		t.Fatalf("got %v, %v", desc, err)
	}
	for _, r := range pulls.requests() {
		if strings.HasSuffix(r.URL.Path, "/v1") {
			t.Errorf("one that may not resolve was asked for %s", r.URL.Path)
		}
	}
	for _, r := range resolves.requests() {
		if r.Method != http.MethodHead {
			t.Errorf("one that may only resolve was asked for %s %s", r.Method, r.URL.Path)
		}
	}
	if len(pulls.requests()) == 0 || len(resolves.requests()) == 0 {
		t.Error("not both were asked")
	}
}

func TestTheAPIIsWhereTheFileSays(t *testing.T) {
	b := built(t)
	var got seen
	mirror := serve(t, &testregistry.Registry{Hook: func(w http.ResponseWriter, r *http.Request) bool {
		got.hook(w, r)
		if !strings.HasPrefix(r.URL.Path, "/v2/proxy/team/app/") || r.URL.Query().Get("ns") != "registry.invalid" {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}})
	mirror.Put("proxy/team/app", "v1", b)
	n := newNode(t)
	n.write("certs.d/registry.invalid/hosts.toml", fmt.Sprintf("[host.\"http://%s/v2/proxy\"]\noverride_path = true\n[host.\"http://%[1]s/v2/proxy\".header]\nx-what = \"ever\"\n", mirror.Host))
	if _, err := n.pull("registry.invalid/team/app:v1", registry.Auth{}); err != nil {
		t.Error(err)
	}
	for _, r := range got.requests() {
		if r.Header.Get("X-What") != "ever" {
			t.Errorf("%s came without its header", r.URL)
		}
	}
}

func TestTheSourceThatHadTheManifestComesFirst(t *testing.T) {
	b := built(t)
	upstream, empty, full := serve(t, nil), serve(t, nil), serve(t, nil)
	full.Put("team/app", "v1", b)
	n := newNode(t)
	n.write("certs.d/"+upstream.Host+"/hosts.toml", fmt.Sprintf("[host.\"http://%s\"]\n[host.\"http://%s\"]\n", empty.Host, full.Host))
	r, name := n.open(upstream.Host+"/team/app:v1", registry.Auth{})
	if _, _, err := r.Manifest(t.Context(), name.Tag, 1<<20); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, s := range r.Sources() {
		order = append(order, s.String())
	}
	if len(order) < 3 || !strings.Contains(order[0], full.Host) || !strings.Contains(order[len(order)-1], empty.Host) {
		t.Errorf("order: %v", order)
	}
}

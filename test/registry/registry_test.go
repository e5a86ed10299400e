package registry_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

func get(t *testing.T, s *registry.Server, path, ranges string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body) // what came of it
	return resp, data
}

func TestFilesAreServedFromDisk(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	path := filepath.Join(dir, "weights.bin")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &registry.Registry{Line: registry.Line{Bandwidth: 4 << 20}}
	if err := r.AddFiles("files", "latest", path); err != nil {
		t.Fatal(err)
	}
	s := registry.Start(r)
	defer s.Close()
	_, data := get(t, s, "/v2/files/manifests/latest", "")
	var m ispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil || len(m.Layers) != 1 {
		t.Fatalf("%v: %s", err, data)
	}
	start := time.Now()
	resp, data := get(t, s, "/v2/files/blobs/"+m.Layers[0].Digest.String(), "bytes=7-")
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(data, content[7:]) {
		t.Errorf("%s, %d bytes", resp.Status, len(data))
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("1 MB over 4 MiB/s took %s", took)
	}
	if _, data = get(t, s, "/v2/files/blobs/"+m.Config.Digest.String(), ""); string(data) != "{}" {
		t.Errorf("config %q", data)
	}
}

func TestLayoutIsServedFromDisk(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := build(t)
	for d, data := range b.Blobs {
		write("blobs/sha256/"+d.Encoded(), string(data))
	}
	root := b.Root
	root.Annotations = map[string]string{ispec.AnnotationRefName: "team/app:v1"}
	index, err := json.Marshal(ispec.Index{Manifests: []ispec.Descriptor{root}})
	if err != nil {
		t.Fatal(err)
	}
	write("index.json", string(index))
	s := registry.Start(nil)
	defer s.Close()
	names, err := s.AddLayout(dir, "other")
	if err != nil || len(names) != 1 || names[0] != "team/app:v1" {
		t.Fatalf("%v, %v", names, err)
	}
	if resp, data := get(t, s, "/v2/team/app/manifests/v1", ""); resp.Header.Get("Content-Type") != root.MediaType || !bytes.Equal(data, b.Blobs[root.Digest]) {
		t.Errorf("manifest: %s %s", resp.Status, data)
	}
	for d, want := range b.Blobs {
		if _, data := get(t, s, "/v2/team/app/blobs/"+d.String(), ""); d != root.Digest && !bytes.Equal(data, want) {
			t.Errorf("%s: %d bytes", d, len(data))
		}
	}
}

func TestFaultsHitTheRequestsTheyAreFor(t *testing.T) {
	b := build(t)
	d := b.Layers[0].Digest
	s := registry.Start(&registry.Registry{Faults: []registry.Fault{
		{Skip: 1, Times: 1, Status: 429, RetryAfter: "7"},
		{Skip: 2, Times: 1, WrongByte: true},
		{Skip: 3, Times: 1, DropAfter: 5},
		{Skip: 4, Times: 1, Short: 3},
		{Skip: 5, Times: 1, NoRange: true},
		{Skip: 6, Times: 1, WrongRange: true},
	}})
	defer s.Close()
	s.Put("app", "v1", b)
	want := b.Blobs[d]
	for n, c := range []struct {
		status int
		bytes  int
		right  bool
	}{
		{http.StatusPartialContent, len(want), true},
		{http.StatusTooManyRequests, -1, false},
		{http.StatusPartialContent, len(want), false},
		{http.StatusPartialContent, 5, false},
		{http.StatusPartialContent, len(want) - 3, false},
		{http.StatusOK, len(want), true},
		{http.StatusPartialContent, 7, false},
		{http.StatusPartialContent, len(want), true},
	} {
		resp, data := get(t, s, "/v2/app/blobs/"+d.String(), "bytes=0-")
		if resp.StatusCode != c.status || c.bytes >= 0 && len(data) != c.bytes || bytes.Equal(data, want) != c.right {
			t.Errorf("request %d: %s, %d bytes of %d", n, resp.Status, len(data), len(want))
		}
		if c.status == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "7" {
			t.Errorf("request %d: %v", n, resp.Header)
		}
	}
}

func build(t *testing.T) *images.Built {
	t.Helper()
	b, err := images.Image{Layers: []images.Layer{{Files: []images.File{{Name: "f", Data: []byte("text")}}}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

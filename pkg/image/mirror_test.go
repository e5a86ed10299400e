package image_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

func TestWrongBytesOfAMirrorAreFetchedFromTheRegistry(t *testing.T) {
	b := build(t, sample("mirrored"))
	layer := b.Blobs[b.Layers[1].Digest]
	flipped := bytes.Clone(layer)
	flipped[len(flipped)-1] ^= 1
	for name, data := range map[string][]byte{
		"last byte": flipped, "cut": layer[:len(layer)/2], "none": {}, "longer": append(bytes.Clone(layer), 'x'), "something else": bytes.Repeat([]byte{'x'}, len(layer)),
	} {
		t.Run(name, func(t *testing.T) {
			upstream, mirror := serve(t, nil), serve(t, nil)
			ref := upstream.Put("team/app", "v1", b)
			mirror.Put("team/app", "v1", b)
			mirror.SetBlob(b.Layers[1].Digest, data)
			dir := filepath.Join(t.TempDir(), upstream.Host)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), fmt.Appendf(nil, "[host.\"http://%s\"]\n", mirror.Host), 0o600); err != nil {
				t.Fatal(err)
			}
			s := service(t)
			s.SetDownloads(registry.Options{MaxRetries: -1, Hosts: hosts.Options{CertsDirs: []string{filepath.Dir(dir)}}}, 1)
			got, err := s.Pull(t.Context(), image.PullRequest{Ref: ref})
			if err != nil || got.ID != b.Config {
				t.Fatalf("got %v, %v", got.ID, err)
			}
			if n := mirror.Requests("GET", "/v2/team/app/blobs/"+b.Layers[1].Digest.String()); n != 1 {
				t.Errorf("the mirror was asked %d times", n)
			}
			if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) > 0 {
				t.Errorf("check: %v, %v", problems, err)
			}
		})
	}
}

package image_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

// damage changes a byte in the middle of a blob and keeps its name.
func damage(t testing.TB, dir string, d digest.Digest) {
	t.Helper()
	p := filepath.Join(dir, "root/images/blobs", d.Algorithm().String(), d.Encoded())
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAPullMendsDamagedContent damages each blob of an image, and restarts.
func TestAPullMendsDamagedContent(t *testing.T) {
	testutil.Root(t)
	for what, choose := range map[string]func(*images.Built) digest.Digest{
		"config":   func(b *images.Built) digest.Digest { return b.Config },
		"manifest": func(b *images.Built) digest.Digest { return b.Root.Digest },
		"layer":    func(b *images.Built) digest.Digest { return b.Layers[0].Digest },
	} {
		t.Run(what, func(t *testing.T) {
			dir, reg, b := t.TempDir(), serve(t, nil), build(t, sample("x"))
			request := image.PullRequest{Ref: reg.Put("app", "v1", b)}
			i, err := open(t, dir).Pull(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, dir, choose(b))
			unpacked := i.Layers[0]
			if err := os.Remove(filepath.Join(dir, "root/layers", "sha256-"+unpacked.Encoded(), "tar.json")); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir)
			if len(s.List()) != 0 {
				t.Error("a damaged image is listed")
			}
			if _, err := s.Pull(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			root := mount(t, s, image.MountRequest{ContainerID: "c", Image: i.ID})
			if got := content(t, root, "etc/motd"); got != "x" {
				t.Errorf("content: %q", got)
			}
			if err := s.Save(t.Context(), []string{request.Ref}, image.SaveOptions{}, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCheckReadsContentAgain(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	s := open(t, dir)
	large := sample("x")
	large.Layers[0].Compression = images.Plain
	large.Layers[0].Files = append(large.Layers[0].Files, images.File{Name: "large", Data: bytes.Repeat([]byte("x"), 9<<20)})
	i := loaded(t, s, "app:v1", large)
	reported := func(d digest.Digest, repair bool) bool {
		problems, err := s.Check(t.Context(), repair, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if p.Object == "blob "+d.String() && strings.Contains(p.What, "does not match") && p.Repaired == repair {
				return true
			}
		}
		return false
	}
	for d, atOnce := range map[digest.Digest]bool{i.ID: true, i.Digest: true, i.Layers[0]: false} {
		damage(t, dir, d)
		if got := reported(d, false); got != atOnce {
			t.Errorf("%s: reported without repair: %v", d, got)
		}
		if !reported(d, true) || reported(d, true) {
			t.Errorf("%s: not reported once", d)
		}
		p := filepath.Join(dir, "root/images/blobs/sha256", d.Encoded())
		if _, err := os.Stat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	loaded(t, s, "app:v1", large)
	if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) != 0 {
		t.Errorf("loaded again: %v, %v", problems, err)
	}
}

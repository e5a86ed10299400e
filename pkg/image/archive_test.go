package image_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/test/images"
)

func TestSaveLoadRoundTrip(t *testing.T) {
	for _, format := range []image.Format{image.FormatOCI, image.FormatDocker} {
		t.Run(string(format), func(t *testing.T) {
			from, to := service(t), service(t)
			want := loaded(t, from, "app:v1", sample("saved"))
			var archive bytes.Buffer
			if err := from.Save(t.Context(), []string{"app:v1"}, format, &archive); err != nil {
				t.Fatal(err)
			}
			packed, err := images.Gzip.Pack(archive.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			got, err := to.Load(t.Context(), bytes.NewReader(packed))
			if err != nil || len(got) != 1 || got[0].ID != want.ID || got[0].RepoTags[0] != want.RepoTags[0] {
				t.Fatalf("%v, %v", got, err)
			}
			root := mount(t, to, image.MountRequest{ContainerID: "c", Image: want.ID})
			if text := content(t, root, "etc/motd"); text != "saved" {
				t.Errorf("content %q", text)
			}
		})
	}
	s := service(t)
	if err := s.Save(t.Context(), []string{"none"}, image.FormatOCI, io.Discard); !errors.Is(err, errs.NotFound) {
		t.Errorf("absent: %v", err)
	}
}

func TestLoadDockerArchive(t *testing.T) {
	s := service(t)
	var archive bytes.Buffer
	if err := images.DockerArchive(&archive, sample("docker"), "app:v1", "app:v2"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load(t.Context(), &archive)
	if err != nil || len(got) != 1 || len(got[0].RepoTags) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	for name, data := range map[string]string{"no archive": "hello", "empty": "", "not gzip": "\x1f\x8b\x08rest"} {
		if _, err := s.Load(t.Context(), strings.NewReader(data)); err == nil {
			t.Errorf("%s was loaded", name)
		}
	}
}

func TestARefusedArchiveLeavesNothing(t *testing.T) {
	s := service(t)
	b := build(t, sample("x"))
	bad := bytes.Clone(b.Blobs[b.Layers[1].Digest])
	bad[len(bad)-1] ^= 1
	b.Blobs[b.Layers[1].Digest] = bad
	var archive bytes.Buffer
	if err := b.OCIArchive(&archive, "e.example/bad:1"); err != nil {
		t.Fatal(err)
	}
	if images, err := s.Load(t.Context(), &archive); !errors.Is(err, errs.Invalid) {
		t.Errorf("loaded %v, %v", images, err)
	}
	if problems, err := s.Check(t.Context(), false, nil); err != nil || len(problems) > 0 {
		t.Errorf("check finds %v, %v", problems, err)
	}
}

package image_test

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

func TestSaveLoadRoundTrip(t *testing.T) {
	testutil.Root(t)
	kept := image.Options{KeepBlobs: true, LayerBackend: "auto"}
	for name, c := range map[string]struct {
		from image.Options
		save image.SaveOptions
		same bool // the manifest, too
	}{
		"oci":                     {kept, image.SaveOptions{Format: image.FormatOCI}, true},
		"docker":                  {kept, image.SaveOptions{Format: image.FormatDocker}, false},
		"directories, oci":        {image.Options{KeepBlobs: true}, image.SaveOptions{Compression: "gzip"}, true},
		"directories, docker":     {image.Options{KeepBlobs: true}, image.SaveOptions{Format: image.FormatDocker}, false},
		"no blobs, oci":           {image.Options{LayerBackend: layer.EROFS}, image.SaveOptions{}, false},
		"no blobs, oci with gzip": {image.Options{LayerBackend: layer.EROFS}, image.SaveOptions{Compression: "gzip"}, false},
		"no blobs, oci with zstd": {image.Options{LayerBackend: layer.EROFS}, image.SaveOptions{Compression: "zstd"}, false},
		"no blobs, docker":        {image.Options{LayerBackend: layer.EROFS}, image.SaveOptions{Format: image.FormatDocker}, false},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := openWith(t, t.TempDir(), c.from), service(t)
			if c.from.LayerBackend == layer.EROFS {
				needEROFS(t)
			}
			i := sample("saved")
			i.Docker = true
			want := loaded(t, from, "app:v1", i)
			var archive bytes.Buffer
			if err := from.Save(t.Context(), []string{"app:v1"}, c.save, &archive); err != nil {
				t.Fatal(err)
			}
			packed, err := images.Gzip.Pack(archive.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			got, err := to.Load(t.Context(), bytes.NewReader(packed))
			if err != nil || len(got) != 1 || got[0].ID != want.ID || got[0].RepoTags[0] != want.RepoTags[0] || !slices.Equal(got[0].Layers, want.Layers) {
				t.Fatalf("%v, %v", got, err)
			}
			if same := got[0].Digest == want.Digest; same != c.same {
				t.Errorf("manifest %s, was %s", got[0].Digest, want.Digest)
			}
			root := mount(t, to, image.MountRequest{ContainerID: "c", Image: want.ID})
			if text := content(t, root, "etc/motd"); text != "saved" {
				t.Errorf("content %q", text)
			}
		})
	}
}

func needEROFS(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	s, err := layer.Open(filepath.Join(dir, "layers"), layer.Options{Backend: layer.EROFS, Mounts: filepath.Join(dir, "mounts")})
	if err != nil {
		t.Fatal(err)
	}
	if form, why := s.Backend(); form != layer.EROFS {
		t.Skip(why)
	}
}

func TestWhatIsSavedTwiceIsTheSame(t *testing.T) {
	testutil.Root(t)
	needEROFS(t)
	s := openWith(t, t.TempDir(), image.Options{LayerBackend: layer.EROFS})
	loaded(t, s, "app:v1", sample("saved"))
	if err := s.Tag(t.Context(), "app:v1", "app:v2"); err != nil {
		t.Fatal(err)
	}
	for _, compression := range []string{"", "gzip", "zstd"} {
		var one, two bytes.Buffer
		for _, w := range []*bytes.Buffer{&one, &two} {
			if err := s.Save(t.Context(), []string{"app:v1", "app:v2"}, image.SaveOptions{Compression: compression}, w); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Errorf("%s: %d bytes and %d others", compression, one.Len(), two.Len())
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(fsRoot(t, s)), "root", "images", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

func fsRoot(t *testing.T, s *image.Service) string {
	t.Helper()
	info, err := s.FsInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.Mountpoint
}

func TestSaveTellsWhatItCannotDo(t *testing.T) {
	testutil.Root(t)
	s := openWith(t, t.TempDir(), image.Options{LayerBackend: layer.Directory})
	loaded(t, s, "app:v1", sample("saved"))
	for name, c := range map[string]struct {
		ref  string
		o    image.SaveOptions
		kind error
		says string
	}{
		"absent":              {"none", image.SaveOptions{}, errs.NotFound, "none"},
		"directories, oci":    {"app:v1", image.SaveOptions{}, errs.Unsupported, "keep_blobs = true"},
		"directories, docker": {"app:v1", image.SaveOptions{Format: image.FormatDocker}, errs.Unsupported, "keep_blobs = true"},
		"no such format":      {"app:v1", image.SaveOptions{Format: "zip"}, errs.Invalid, "zip"},
		"no such compression": {"app:v1", image.SaveOptions{Compression: "xz"}, errs.Invalid, "xz"},
	} {
		if err := s.Save(t.Context(), []string{c.ref}, c.o, io.Discard); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
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

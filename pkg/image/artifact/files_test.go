package artifact

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func blobOf(mediaType, title string, notes ...string) ispec.Descriptor {
	data := mediaType + title + strings.Join(notes, "")
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data)), Annotations: map[string]string{}}
	if title != "" {
		d.Annotations[ispec.AnnotationTitle] = title
	}
	for n := 0; n+1 < len(notes); n += 2 {
		d.Annotations[notes[n]] = notes[n+1]
	}
	return d
}

func TestArtifactsAreToldFromImages(t *testing.T) {
	config := func(mediaType string) ispec.Descriptor { return ispec.Descriptor{MediaType: mediaType} }
	layer, docker, raw := blobOf(ispec.MediaTypeImageLayerGzip, ""), blobOf(dockerLayer+"diff.tar.gzip", ""), blobOf("application/x", "a")
	for name, c := range map[string]struct {
		m    ispec.Manifest
		want bool
	}{
		"an OCI image":                  {ispec.Manifest{Config: config(ispec.MediaTypeImageConfig), Layers: []ispec.Descriptor{layer}}, false},
		"a Docker image":                {ispec.Manifest{Config: config(dockerConfig), Layers: []ispec.Descriptor{docker}}, false},
		"an image that states a type":   {ispec.Manifest{ArtifactType: "a/b", Config: config(ispec.MediaTypeImageConfig), Layers: []ispec.Descriptor{layer}}, false},
		"files under an image's config": {ispec.Manifest{ArtifactType: "a/b", Config: config(ispec.MediaTypeImageConfig), Layers: []ispec.Descriptor{layer, raw}}, true},
		"an empty config":               {ispec.Manifest{ArtifactType: "a/b", Config: config(ispec.MediaTypeEmptyJSON), Layers: []ispec.Descriptor{layer}}, true},
		"a Helm chart":                  {ispec.Manifest{Config: config("application/vnd.cncf.helm.config.v1+json")}, true},
	} {
		if got := Is(c.m); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBlobsBecomeFilesByTheirTitles(t *testing.T) {
	untitled := blobOf("application/x", "")
	for name, c := range map[string]struct {
		blob ispec.Descriptor
		want string // "" for an archive
	}{
		"a title":                     {blobOf("application/x", "model.bin"), "model.bin"},
		"a directory":                 {blobOf("application/x", "a/b/model.bin"), "a/b/model.bin"},
		"not clean":                   {blobOf("application/x", "./a//b"), "a/b"},
		"no title":                    {untitled, "sha256-" + untitled.Digest.Encoded()},
		"ModelPack's path":            {blobOf("application/vnd.cncf.model.weight.v1.raw", "", annotationPath, "w/1.safetensors"), "w/1.safetensors"},
		"ModelPack's archive":         {blobOf("application/vnd.cncf.model.weight.v1.tar", "", annotationPath, "w/1.safetensors"), ""},
		"ModelPack's packed archive":  {blobOf("application/vnd.cncf.model.weight.v1.tar+zstd", "w"), ""},
		"a Helm chart":                {blobOf("application/vnd.cncf.helm.chart.content.v1.tar+gzip", ""), ""},
		"ORAS's type for any file":    {blobOf(ispec.MediaTypeImageLayer, "readme.txt"), "readme.txt"},
		"ORAS's directory":            {blobOf(ispec.MediaTypeImageLayerGzip, "dir", annotationUnpack, "true"), ""},
		"an archive to be left alone": {blobOf(ispec.MediaTypeImageLayerGzip, "dir.tgz", annotationUnpack, "false"), "dir.tgz"},
		"a layer":                     {blobOf(ispec.MediaTypeImageLayerGzip, ""), ""},
		"a plain layer":               {blobOf(ispec.MediaTypeImageLayer, ""), ""},
		"a type with a parameter":     {blobOf("application/x-tar; a=b", "x.tar"), ""},
		"tar in the middle":           {blobOf("application/vnd.tar.weights", "x"), "x"},
		"an encrypted archive":        {blobOf(ispec.MediaTypeImageLayer+"+gzip+encrypted", "x"), "x"},
	} {
		files, err := Files(ispec.Manifest{Layers: []ispec.Descriptor{c.blob}})
		if err != nil || len(files) != 1 || files[0].Name != c.want || files[0].Archive() != (c.want == "") {
			t.Errorf("%s: %+v, %v", name, files, err)
		}
	}
}

func TestHostileTitlesAreRefused(t *testing.T) {
	for _, title := range []string{
		"/etc/passwd", "..", "../x", "a/../../x", "a/../b", "a/..", ".", "./", "dir/", "a\x00b", "a\nb", "\x7f", strings.Repeat("a", 256), strings.Repeat("a/", 3000) + "a",
	} {
		if files, err := Files(ispec.Manifest{Layers: []ispec.Descriptor{blobOf("application/x", title)}}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%.20q: %+v, %v", title, files, err)
		}
	}
}

func TestTitlesMustNotCollide(t *testing.T) {
	a, b := blobOf("application/x", "a"), blobOf("application/y", "a")
	below, marker := blobOf("application/x", "a/b"), blobOf(ispec.MediaTypeEmptyJSON, "")
	for name, layers := range map[string][]ispec.Descriptor{"two contents": {a, b}, "a file and a directory": {a, below}, "the other way round": {below, a}} {
		if _, err := Files(ispec.Manifest{Layers: layers}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	files, err := Files(ispec.Manifest{Layers: []ispec.Descriptor{a, marker, a}})
	if diff := cmp.Diff([]File{{Blob: a, Name: "a"}}, files); err != nil || diff != "" {
		t.Errorf("one content twice: %v, %s", err, diff)
	}
	if _, err := Files(ispec.Manifest{Layers: make([]ispec.Descriptor, maxFiles+1)}); !errors.Is(err, errs.Invalid) {
		t.Errorf("too many: %v", err)
	}
}

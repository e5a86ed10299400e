package export_test

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/export"
)

func TestOnlyAnotherPackingMakesAnotherManifest(t *testing.T) {
	const dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"
	blob := func(mediaType, text string) ispec.Descriptor {
		return ispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text)), Annotations: map[string]string{"about": text}}
	}
	old := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: "application/vnd.docker.distribution.manifest.v2+json",
		Config: blob("application/vnd.docker.container.image.v1+json", "config"),
		Layers: []ispec.Descriptor{blob(dockerLayer+".gzip", "one"), blob(dockerLayer, "two"), blob(dockerLayer+".gzip", "three")},
	}
	data, err := json.MarshalIndent(old, "", "   ")
	if err != nil {
		t.Fatal(err)
	}
	d := ispec.Descriptor{MediaType: old.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	read := func(layers ...ispec.Descriptor) (ispec.Descriptor, []byte) {
		t.Helper()
		b, err := export.Manifest(d, data, layers)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || digest.FromBytes(text) != b.Digest || int64(len(text)) != b.Size {
			t.Fatalf("%+v: %v, %s", b.Descriptor, err, text)
		}
		return b.Descriptor, text
	}
	if got, text := read(old.Layers...); got.Digest != d.Digest || got.MediaType != d.MediaType || string(text) != string(data) {
		t.Errorf("as it came: %+v %s", got, text)
	}
	packed := ispec.Descriptor{MediaType: ispec.MediaTypeImageLayerZstd, Digest: digest.FromString("packed"), Size: 6}
	got, text := read(old.Layers[0], old.Layers[1], packed)
	var m ispec.Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if got.MediaType != ispec.MediaTypeImageManifest || m.MediaType != got.MediaType || m.Config.MediaType != ispec.MediaTypeImageConfig || m.Config.Digest != old.Config.Digest {
		t.Errorf("packed again: %+v %s", got, text)
	}
	for n, want := range []string{ispec.MediaTypeImageLayerGzip, ispec.MediaTypeImageLayer, ispec.MediaTypeImageLayerZstd} {
		if m.Layers[n].MediaType != want || (m.Layers[n].Annotations == nil) != (n == 2) {
			t.Errorf("layer %d: %+v", n, m.Layers[n])
		}
	}
	if b, err := export.Manifest(d, data, nil); err == nil {
		t.Errorf("no layers: %+v", b.Descriptor)
	}
}

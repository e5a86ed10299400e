package images

import (
	"archive/tar"
	"encoding/json"
	"io"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Archive writes an OCI archive that holds image under the given name.
func Archive(w io.Writer, name string, image Image) error {
	b, err := image.Build()
	if err != nil {
		return err
	}
	return b.OCIArchive(w, name)
}

// OCIArchive writes the blobs as an OCI image layout in a tar stream.
func (b *Built) OCIArchive(w io.Writer, name string) error {
	root := b.Root
	root.Annotations = map[string]string{ispec.AnnotationRefName: name}
	if name == "" {
		root.Annotations = nil
	}
	index, err := json.Marshal(ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{root},
	})
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	if err := put(t, ispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := put(t, ispec.ImageIndexFile, index); err != nil {
		return err
	}
	for _, d := range b.digests() {
		if err := put(t, path.Join(ispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), b.Blobs[d]); err != nil {
			return err
		}
	}
	return t.Close()
}

func (b *Built) digests() []digest.Digest {
	var all []digest.Digest
	for d := range b.Blobs {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// DockerArchive writes image as `docker save` did before it wrote OCI layouts.
func DockerArchive(w io.Writer, image Image, tags ...string) error {
	b, err := image.Build()
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: b.Config.Encoded() + ".json", RepoTags: tags}
	for _, l := range image.Layers {
		stream, err := l.Stream()
		if err != nil {
			return err
		}
		name := digest.FromBytes(stream).Encoded() + "/layer.tar"
		entry.Layers = append(entry.Layers, name)
		if err := put(t, name, stream); err != nil {
			return err
		}
	}
	if err := put(t, entry.Config, b.Blobs[b.Config]); err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	if err := put(t, "manifest.json", manifest); err != nil {
		return err
	}
	return t.Close()
}

func put(t *tar.Writer, name string, data []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

package images

import (
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is one blob of an Artifact.
type Blob struct {
	Title     string // the annotation, none where empty
	MediaType string // default application/octet-stream
	Data      []byte
	Noise     Noise             // instead of Data
	Notes     map[string]string // annotations beside the title
}

// Artifact describes an OCI artifact to build.
type Artifact struct {
	Type       string // artifactType, none where empty
	ConfigType string // default the empty config's
	Config     []byte // default {}
	Blobs      []Blob
	Notes      map[string]string // the manifest's annotations
}

// Build makes the artifact's blobs.
func (a Artifact) Build() (*Built, error) {
	b := &Built{}
	configType, config := a.ConfigType, a.Config
	if configType == "" {
		configType = ispec.MediaTypeEmptyJSON
	}
	if config == nil {
		config = []byte("{}")
	}
	c := b.add(configType, config)
	for _, blob := range a.Blobs {
		mediaType := blob.MediaType
		if mediaType == "" {
			mediaType = "application/octet-stream"
		}
		d, err := b.addBlob(mediaType, blob)
		if err != nil {
			return nil, err
		}
		d.Annotations = map[string]string{}
		for k, v := range blob.Notes {
			d.Annotations[k] = v
		}
		if blob.Title != "" {
			d.Annotations[ispec.AnnotationTitle] = blob.Title
		}
		b.Layers = append(b.Layers, d)
	}
	b.Config = c.Digest
	var err error
	b.Root, err = b.addJSON(ispec.MediaTypeImageManifest, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, ArtifactType: a.Type,
		Config: c, Layers: b.Layers, Annotations: a.Notes,
	})
	return b, err
}

func (b *Built) addBlob(mediaType string, blob Blob) (ispec.Descriptor, error) {
	if blob.Noise.Size == 0 {
		return b.add(mediaType, blob.Data), nil
	}
	sum, err := blob.Noise.Digest()
	if b.Noise == nil {
		b.Noise = map[digest.Digest]Noise{}
	}
	b.Noise[sum] = blob.Noise
	return ispec.Descriptor{MediaType: mediaType, Digest: sum, Size: blob.Noise.Size}, err
}

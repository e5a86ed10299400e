package images

import (
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blob is one blob of an Artifact.
type Blob struct {
	Title     string // the annotation, none where empty
	MediaType string // default application/octet-stream
	Data      []byte
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
		d := b.add(mediaType, blob.Data)
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

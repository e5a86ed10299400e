package catalog

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const version = 1

// Record is an image on disk. It names content; it holds none.
type Record struct {
	Version  int               `json:"version"`
	ID       digest.Digest     `json:"id"`
	Manifest ispec.Descriptor  `json:"manifest"`
	Layers   []Layer           `json:"layers,omitempty"`
	Stack    []digest.Digest   `json:"stack,omitempty"` // what to mount, the lowest first
	Trees    []digest.Digest   `json:"trees,omitempty"` // instead, for handlers that take directories alone
	Size     int64             `json:"size"`
	Created  time.Time         `json:"created"`
	Notes    map[string]string `json:"annotations,omitempty"`
	Handlers []string          `json:"runtimeHandlers,omitempty"` // that it is here for; none is the default one
	Artifact *Artifact         `json:"artifact,omitempty"`        // nil for an image

	Config ispec.Image `json:"-"` // read from its blob
	Fault  error       `json:"-"` // why the image is not shown; see Inspect
	Since  time.Time   `json:"-"` // of Fault
}

// Layer joins the two forms of a layer.
type Layer struct {
	DiffID digest.Digest    `json:"diffID"`
	Blob   ispec.Descriptor `json:"blob"`
}

// Artifact is what a record has of an artifact, whose id is the digest of its
// manifest and whose layers have blobs only.
type Artifact struct {
	Type   string           `json:"type"`
	Config ispec.Descriptor `json:"config"`
	Tree   string           `json:"tree"`
}

// refRecord is a reference on disk.
type refRecord struct {
	Version int           `json:"version"`
	Name    string        `json:"name"`
	Image   digest.Digest `json:"image"`
}

// DiffIDs returns an image's layers, the lowest first; none for an artifact.
func (r Record) DiffIDs() []digest.Digest {
	var all []digest.Digest
	for _, l := range r.Layers {
		if r.Artifact == nil {
			all = append(all, l.DiffID)
		}
	}
	return all
}

// Content is every blob that a record names.
func (r Record) Content() []digest.Digest {
	all := []digest.Digest{r.ID, r.Manifest.Digest}
	if r.Artifact != nil {
		all = append(all, r.Artifact.Config.Digest)
	}
	for _, l := range r.Layers {
		all = append(all, l.Blob.Digest)
	}
	return all
}

// Needs is every blob and every layer that a record names.
func (r Record) Needs() []digest.Digest {
	return slices.Concat(r.Content(), r.DiffIDs(), r.Stack, r.Trees)
}

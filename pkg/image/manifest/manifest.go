// Package manifest reads manifests, indexes and configs of images, in OCI's forms
// and in Docker's. It keeps nothing and fetches nothing; all that it reads is
// attackers' data: bounded here, and checked before anybody uses it.
package manifest

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/blob"
)

// Bounds on what a registry or an archive may have us read into memory.
const (
	MaxSize      = 4 << 20 // of a manifest or an index
	MaxConfig    = 8 << 20
	MaxLayers    = 490 // overlay stacks 500, and stacking layers come on top
	MaxManifests = 10_000
	maxDepth     = 3 // indexes within indexes
)

// Docker's media types, beside those of the OCI image specification.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerLayer    = "application/vnd.docker.image.rootfs."
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+"
	ociLayer       = "application/vnd.oci.image.layer."
)

// Document is a manifest or an index, as it came.
type Document struct {
	Desc ispec.Descriptor
	Data []byte
}

// CheckDescriptor refuses what cannot describe a blob.
func CheckDescriptor(d ispec.Descriptor) error {
	if err := blob.Validate(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: size %d: %w", d.Digest, d.Size, errs.Invalid)
	}
	return nil
}

// probe finds what kind a document is: the type that it states itself must not
// contradict the one that it came with.
type probe struct {
	MediaType string             `json:"mediaType"`
	Manifests []ispec.Descriptor `json:"manifests"`
	Layers    []ispec.Descriptor `json:"layers"`
	Config    *ispec.Descriptor  `json:"config"`
}

// Parse returns the manifest or the index that data is.
func Parse(d Document) (*ispec.Manifest, *ispec.Index, error) {
	var p probe
	what := "manifest " + d.Desc.Digest.String()
	if err := Decode(d.Data, &p, what); err != nil {
		return nil, nil, err
	}
	if p.MediaType != "" && d.Desc.MediaType != "" && p.MediaType != d.Desc.MediaType {
		return nil, nil, fmt.Errorf("%s: says it is %.100q and came as %.100q: %w", what, p.MediaType, d.Desc.MediaType, errs.Invalid)
	}
	mediaType := d.Desc.MediaType
	if mediaType == "" {
		mediaType = p.MediaType
	}
	if (p.Config != nil || p.Layers != nil) && p.Manifests != nil {
		return nil, nil, fmt.Errorf("%s: is both a manifest and an index: %w", what, errs.Invalid)
	}
	switch {
	case strings.HasPrefix(mediaType, dockerSchema1):
		return nil, nil, fmt.Errorf("%s: Docker's schema 1 is no longer read: %w", what, errs.Unsupported)
	case mediaType == ispec.MediaTypeImageIndex, mediaType == dockerList, mediaType == "" && p.Manifests != nil:
		i, err := checkIndex(p, what)
		return nil, i, err
	case mediaType == ispec.MediaTypeImageManifest, mediaType == dockerManifest, mediaType == "" && p.Config != nil:
		m, err := ParseManifest(d.Data, what)
		return m, nil, err
	}
	return nil, nil, fmt.Errorf("%s: media type %.100q is no image: %w", what, mediaType, errs.Unsupported)
}

func checkIndex(p probe, what string) (*ispec.Index, error) {
	if len(p.Manifests) > MaxManifests {
		return nil, fmt.Errorf("%s: %d manifests are too many: %w", what, len(p.Manifests), errs.Invalid)
	}
	for _, d := range p.Manifests {
		if err := CheckDescriptor(d); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	return &ispec.Index{MediaType: p.MediaType, Manifests: p.Manifests}, nil
}

// ParseManifest returns the manifest that data is; what names it in errors.
func ParseManifest(data []byte, what string) (*ispec.Manifest, error) {
	var m ispec.Manifest
	if err := Decode(data, &m, what); err != nil {
		return nil, err
	}
	for _, d := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if err := CheckDescriptor(d); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	if m.Config.Size > MaxConfig {
		return nil, fmt.Errorf("%s: config of %d bytes: %w", what, m.Config.Size, errs.Invalid)
	}
	if artifact.Is(m) {
		return &m, nil
	}
	if len(m.Layers) > MaxLayers {
		return nil, fmt.Errorf("%s: %d layers are more than the %d that can be stacked: %w", what, len(m.Layers), MaxLayers, errs.Unsupported)
	}
	for _, l := range m.Layers {
		t := l.MediaType
		if !strings.HasPrefix(t, ociLayer) && !strings.HasPrefix(t, dockerLayer) || strings.Contains(t, "encrypted") {
			return nil, fmt.Errorf("%s: layer of type %.100q: %w", what, t, errs.Unsupported)
		}
	}
	return &m, nil
}

// ParseConfig reads an image's config. Its strings stay attackers' data.
func ParseConfig(data []byte) (ispec.Image, error) {
	var c ispec.Image
	if err := Decode(data, &c, "image config"); err != nil {
		return c, err
	}
	if len(c.RootFS.DiffIDs) > MaxLayers {
		return c, fmt.Errorf("image config: %d layers: %w", len(c.RootFS.DiffIDs), errs.Unsupported)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := blob.Validate(d); err != nil {
			return c, fmt.Errorf("image config: diffID: %w", err)
		}
	}
	return c, nil
}

// Host is what images are chosen for where the request names nothing.
func Host() ispec.Platform {
	return ispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// Descend goes from an index to the manifest of a platform.
func Descend(d ispec.Descriptor, want ispec.Platform, get func(ispec.Descriptor) (Document, error)) (Document, error) {
	for range maxDepth {
		doc, err := get(d)
		if err != nil {
			return doc, err
		}
		_, index, err := Parse(doc)
		if err != nil || index == nil {
			return doc, err
		}
		if d, err = choose(index, want, d.Digest); err != nil {
			return doc, err
		}
	}
	return Document{}, fmt.Errorf("index %s: more than %d indexes deep: %w", d.Digest, maxDepth, errs.Invalid)
}

// choose returns the index's entry for a platform. An entry without a platform
// serves where none names one.
func choose(i *ispec.Index, want ispec.Platform, of digest.Digest) (ispec.Descriptor, error) {
	best, found := -1, ispec.Descriptor{}
	for _, d := range i.Manifests {
		if d.MediaType != "" && !IsManifest(d.MediaType) {
			continue
		}
		if rank := match(d.Platform, want); rank > best {
			best, found = rank, d
		}
	}
	if best < 0 {
		return found, fmt.Errorf("index %s: no image for %s/%s: %w", of, want.OS, want.Architecture, errs.NotFound)
	}
	return found, nil
}

// IsManifest reports whether a media type is a manifest's or an index's.
func IsManifest(t string) bool {
	return t == ispec.MediaTypeImageManifest || t == ispec.MediaTypeImageIndex || t == dockerManifest || t == dockerList
}

// Serves reports whether what an index says of an entry fits a platform.
func Serves(have *ispec.Platform, want ispec.Platform) bool { return match(have, want) >= 0 }

// match ranks an entry: -1 does not serve, higher is nearer.
func match(have *ispec.Platform, want ispec.Platform) int {
	if have == nil {
		return 0
	}
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return -1
	}
	switch have.Variant {
	case want.Variant:
		return 3
	case "":
		return 2
	}
	if want.Variant != "" {
		return -1
	}
	if have.Architecture == "arm64" && have.Variant == "v8" || have.Architecture == "arm" && have.Variant == "v7" || have.Architecture == "amd64" && have.Variant == "v1" {
		return 2
	}
	if have.Architecture == "amd64" {
		return -1 // v2 and up may use instructions that this machine lacks
	}
	return 1
}

// Decode reads JSON into v; what names it in errors, which are of kind Invalid.
func Decode(data []byte, v any, what string) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w: %w", what, err, errs.Invalid)
	}
	return nil
}

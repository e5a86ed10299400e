package image

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/blob"
)

// Bounds on what a registry or an archive may have us read into memory.
const (
	maxManifest  = 4 << 20
	maxConfig    = 8 << 20
	maxLayers    = 490 // overlay stacks 500, and stacking layers come on top
	maxManifests = 10_000
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

// document is a manifest or an index, as it came.
type document struct {
	desc ispec.Descriptor
	data []byte
}

// checkDescriptor refuses what cannot describe a blob.
func checkDescriptor(d ispec.Descriptor) error {
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

// parseDocument returns the manifest or the index that data is.
func parseDocument(d document) (*ispec.Manifest, *ispec.Index, error) {
	var p probe
	what := "manifest " + d.desc.Digest.String()
	if err := decode(d.data, &p, what); err != nil {
		return nil, nil, err
	}
	if p.MediaType != "" && d.desc.MediaType != "" && p.MediaType != d.desc.MediaType {
		return nil, nil, fmt.Errorf("%s: says it is %.100q and came as %.100q: %w", what, p.MediaType, d.desc.MediaType, errs.Invalid)
	}
	mediaType := d.desc.MediaType
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
		m, err := checkManifest(d.data, what)
		return m, nil, err
	}
	return nil, nil, fmt.Errorf("%s: media type %.100q is no image: %w", what, mediaType, errs.Unsupported)
}

func checkIndex(p probe, what string) (*ispec.Index, error) {
	if len(p.Manifests) > maxManifests {
		return nil, fmt.Errorf("%s: %d manifests are too many: %w", what, len(p.Manifests), errs.Invalid)
	}
	for _, d := range p.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	return &ispec.Index{MediaType: p.MediaType, Manifests: p.Manifests}, nil
}

func checkManifest(data []byte, what string) (*ispec.Manifest, error) {
	var m ispec.Manifest
	if err := decode(data, &m, what); err != nil {
		return nil, err
	}
	for _, d := range append([]ispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	if m.Config.Size > maxConfig {
		return nil, fmt.Errorf("%s: config of %d bytes: %w", what, m.Config.Size, errs.Invalid)
	}
	if artifact.Is(m) {
		return &m, nil
	}
	if len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("%s: %d layers are more than the %d that can be stacked: %w", what, len(m.Layers), maxLayers, errs.Unsupported)
	}
	for _, l := range m.Layers {
		t := l.MediaType
		if !strings.HasPrefix(t, ociLayer) && !strings.HasPrefix(t, dockerLayer) || strings.Contains(t, "encrypted") {
			return nil, fmt.Errorf("%s: layer of type %.100q: %w", what, t, errs.Unsupported)
		}
	}
	return &m, nil
}

// parseConfig reads an image's config. Its strings stay attackers' data.
func parseConfig(data []byte) (ispec.Image, error) {
	var c ispec.Image
	if err := decode(data, &c, "image config"); err != nil {
		return c, err
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return c, fmt.Errorf("image config: %d layers: %w", len(c.RootFS.DiffIDs), errs.Unsupported)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := blob.Validate(d); err != nil {
			return c, fmt.Errorf("image config: diffID: %w", err)
		}
	}
	return c, nil
}

// choose returns the index's entry for a platform. An entry without a platform
// serves where none names one.
func choose(i *ispec.Index, want ispec.Platform, of digest.Digest) (ispec.Descriptor, error) {
	best, found := -1, ispec.Descriptor{}
	for _, d := range i.Manifests {
		if d.MediaType != "" && !isManifestType(d.MediaType) {
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

func isManifestType(t string) bool {
	return t == ispec.MediaTypeImageManifest || t == ispec.MediaTypeImageIndex || t == dockerManifest || t == dockerList
}

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

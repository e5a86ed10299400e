package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/archive"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/pkg/image/reference"
)

// dockerSource gives the files of a docker archive by the digests that we have
// given them.
type dockerSource struct {
	spool *archive.Spool
	names map[digest.Digest]string
}

// Blob implements source.
func (d dockerSource) Blob(_ context.Context, desc ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	name, ok := d.names[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("archive has no blob %s: %w", desc.Digest, errs.Invalid)
	}
	return d.spool.Open(name, offset)
}

func (s *Service) loadDocker(ctx context.Context, sp *archive.Spool) ([]Image, error) {
	data, err := sp.ReadAll(archive.DockerManifest, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	var entries []archive.DockerEntry
	if err := manifest.Decode(data, &entries, archive.DockerManifest); err != nil {
		return nil, err
	}
	var images []Image
	for _, e := range entries {
		i, err := s.loadDockerEntry(ctx, sp, e)
		if err != nil {
			return images, err
		}
		images = append(images, i)
	}
	return images, nil
}

func (s *Service) loadDockerEntry(ctx context.Context, sp *archive.Spool, e archive.DockerEntry) (Image, error) {
	if len(e.Layers) > manifest.MaxLayers {
		return Image{}, fmt.Errorf("%s: %d layers: %w", archive.DockerManifest, len(e.Layers), errs.Unsupported)
	}
	src := dockerSource{spool: sp, names: map[digest.Digest]string{}}
	config, err := src.describe(ctx, e.Config, ispec.MediaTypeImageConfig)
	if err != nil {
		return Image{}, err
	}
	m := ispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest, Config: config, Layers: []ispec.Descriptor{}}
	for _, l := range e.Layers {
		d, err := src.describe(ctx, l, ispec.MediaTypeImageLayer)
		if err != nil {
			return Image{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return Image{}, err
	}
	var refs []string
	for _, t := range e.RepoTags {
		// A digest would be that of a manifest which is not here.
		if r, err := reference.Parse(t); err == nil && r.Digest == "" {
			refs = append(refs, r.String())
		}
	}
	desc := ispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return s.add(ctx, manifest.Document{Desc: desc, Data: data}, src, refs, "", nil)
}

// describe finds what a file is, and remembers its name.
func (d dockerSource) describe(ctx context.Context, name, mediaType string) (ispec.Descriptor, error) {
	desc, err := d.spool.Describe(ctx, name, mediaType)
	if err == nil {
		d.names[desc.Digest] = name
	}
	return desc, err
}

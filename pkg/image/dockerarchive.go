package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/reference"
)

const dockerManifestFile = "manifest.json"

// dockerEntry is one image of a docker archive's manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerSource gives the files of a docker archive by the digests that we have
// given them.
type dockerSource struct {
	spool *spool
	names map[digest.Digest]string
}

// Blob implements source.
func (d dockerSource) Blob(_ context.Context, desc ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	name, ok := d.names[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("archive has no blob %s: %w", desc.Digest, errs.Invalid)
	}
	return d.spool.openAt(name, offset)
}

func (s *Service) loadDocker(ctx context.Context, sp *spool) ([]Image, error) {
	data, err := sp.readAll(dockerManifestFile, maxManifest)
	if err != nil {
		return nil, err
	}
	var entries []dockerEntry
	if err := decode(data, &entries, dockerManifestFile); err != nil {
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

func (s *Service) loadDockerEntry(ctx context.Context, sp *spool, e dockerEntry) (Image, error) {
	if len(e.Layers) > maxLayers {
		return Image{}, fmt.Errorf("%s: %d layers: %w", dockerManifestFile, len(e.Layers), errs.Unsupported)
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
	return s.add(ctx, document{desc: desc, data: data}, src, refs, nil)
}

// describe finds a file's digest, size and, for a layer, compression.
func (d dockerSource) describe(ctx context.Context, name, mediaType string) (ispec.Descriptor, error) {
	f, err := d.spool.open(name)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return ispec.Descriptor{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ispec.Descriptor{}, err
	}
	hash := digest.SHA256.Digester()
	size, err := io.Copy(hash.Hash(), blob.ContextReader(ctx, f))
	if err != nil {
		return ispec.Descriptor{}, err
	}
	if mediaType == ispec.MediaTypeImageLayer {
		switch {
		case n >= 2 && head[0] == 0x1f && head[1] == 0x8b:
			mediaType = ispec.MediaTypeImageLayerGzip
		case n == 4 && string(head) == "\x28\xb5\x2f\xfd":
			mediaType = ispec.MediaTypeImageLayerZstd
		}
	}
	desc := ispec.Descriptor{MediaType: mediaType, Digest: hash.Digest(), Size: size}
	d.names[desc.Digest] = name
	return desc, nil
}

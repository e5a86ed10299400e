package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/archive"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/internal/room"
)

// spoolDir is where archives are laid out, and layers packed again.
func (s *Service) spoolDir() string { return filepath.Join(s.options.Root, "images") }

// Load adds the images of an OCI archive or a docker archive, compressed or not,
// and returns them. Images without a name keep their id only.
func (s *Service) Load(ctx context.Context, r io.Reader) ([]Image, error) {
	sp, err := archive.Read(ctx, s.spoolDir(), s.pool, r)
	if err != nil {
		return nil, fmt.Errorf("load: %w", room.Explain(err, s.spoolDir(), 0))
	}
	defer sp.Remove()
	var images []Image
	switch {
	case sp.Has(ispec.ImageIndexFile):
		images, err = s.loadOCI(ctx, sp)
	case sp.Has(archive.DockerManifest):
		images, err = s.loadDocker(ctx, sp)
	default:
		err = fmt.Errorf("archive has neither %s nor %s: %w", ispec.ImageIndexFile, archive.DockerManifest, errs.Invalid)
	}
	if err != nil {
		return images, fmt.Errorf("load: %w", errors.Join(room.Explain(err, s.options.Root, 0), s.clean(ctx)))
	}
	return images, nil
}

// ociSource gives the blobs of an OCI layout.
type ociSource struct{ spool *archive.Spool }

// Blob implements source.
func (o ociSource) Blob(_ context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := manifest.CheckDescriptor(d); err != nil {
		return nil, err
	}
	return o.spool.Open(archive.BlobName(d.Digest), offset)
}

func (o ociSource) document(d ispec.Descriptor) (manifest.Document, error) {
	if err := manifest.CheckDescriptor(d); err != nil {
		return manifest.Document{}, err
	}
	data, err := o.spool.ReadAll(archive.BlobName(d.Digest), manifest.MaxSize)
	if err != nil {
		return manifest.Document{}, err
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return manifest.Document{}, fmt.Errorf("manifest %s: its bytes have digest %s: %w", d.Digest, got, errs.Invalid)
	}
	d.Size = int64(len(data))
	return manifest.Document{Desc: d, Data: data}, nil
}

func (s *Service) loadOCI(ctx context.Context, sp *archive.Spool) ([]Image, error) {
	data, err := sp.ReadAll(ispec.ImageIndexFile, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	var top ispec.Index
	if err := manifest.Decode(data, &top, ispec.ImageIndexFile); err != nil {
		return nil, err
	}
	if len(top.Manifests) > manifest.MaxManifests {
		return nil, fmt.Errorf("%s: %d manifests: %w", ispec.ImageIndexFile, len(top.Manifests), errs.Invalid)
	}
	var images []Image
	src := ociSource{sp}
	for _, d := range top.Manifests {
		if !manifest.Serves(d.Platform, manifest.Host()) && len(top.Manifests) > 1 || d.MediaType != "" && !manifest.IsManifest(d.MediaType) {
			continue // of another machine, or an attestation
		}
		i, err := s.loadManifest(ctx, src, d)
		if err != nil {
			return images, err
		}
		images = append(images, i)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("archive has no image for %s/%s: %w", manifest.Host().OS, manifest.Host().Architecture, errs.NotFound)
	}
	return images, nil
}

func (s *Service) loadManifest(ctx context.Context, src ociSource, d ispec.Descriptor) (Image, error) {
	refs := archiveRefs(d)
	doc, err := manifest.Descend(d, manifest.Host(), src.document)
	if err != nil {
		return Image{}, err
	}
	return s.add(ctx, doc, src, refs, "", nil)
}

// archiveRefs returns the references that an archive asks for: the tag, and the
// digest in the same repository. A name that is no reference is passed over.
func archiveRefs(d ispec.Descriptor) []string {
	name := d.Annotations[archive.AnnotationName]
	if name == "" {
		name = d.Annotations[ispec.AnnotationRefName]
		if !strings.ContainsAny(name, ":/") {
			return nil // "latest": of what, nobody knows
		}
	}
	r, err := reference.Parse(name)
	if err != nil {
		return nil
	}
	refs := []string{reference.Name{Domain: r.Domain, Path: r.Path, Digest: d.Digest}.String()}
	if r.Digest == "" {
		refs = append(refs, r.String())
	}
	return refs
}

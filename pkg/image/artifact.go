package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/flight"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/manifest"
)

// addArtifact brings an artifact here as add does an image.
func (s *Service) addArtifact(ctx context.Context, m manifest.Document, form ispec.Manifest, src source, refs []string, handler string, report *flight.Reporter) (Image, error) {
	files, err := artifact.Files(form)
	if err != nil {
		return Image{}, fmt.Errorf("manifest %s: %w", m.Desc.Digest, err)
	}
	r := catalog.Record{
		ID: m.Desc.Digest, Manifest: m.Desc, Notes: form.Annotations, Created: time.Now().UTC(), Handlers: []string{handler},
		Artifact: &catalog.Artifact{Type: artifact.Type(form), Config: form.Config},
	}
	for _, f := range files {
		r.Layers = append(r.Layers, catalog.Layer{Blob: f.Blob})
	}
	lease := s.catalog.Lease(r.Content()...)
	defer lease.Release()
	s.catalog.With(func(tx *catalog.Tx) {
		if old, ok := tx.Record(r.ID); ok && old.Artifact != nil {
			r.Artifact.Tree = old.Artifact.Tree
		}
	})
	tree, err := s.artifacts.Add(ctx, r.ID, files, r.Artifact.Tree, blobs{s, src, report})
	if err != nil {
		return Image{}, mismatch(err)
	}
	r.Artifact.Tree, r.Size = tree.Name, m.Desc.Size+form.Config.Size+tree.Size
	if err := s.mend(ctx, form.Config.Digest); err != nil {
		return Image{}, err
	}
	if err := s.artifacts.Fetch(ctx, form.Config, blobs{s, src, nil}); err != nil {
		return Image{}, fmt.Errorf("config: %w", mismatch(err))
	}
	if err := s.mend(ctx, m.Desc.Digest); err != nil {
		return Image{}, err
	}
	if err := s.blobs.Put(ctx, m.Desc.Digest, m.Desc.Size, bytes.NewReader(m.Data)); err != nil {
		return Image{}, err
	}
	return s.catalog.Save(ctx, r, refs)
}

// blobs gives an artifact's content, and tells how much of it has come.
type blobs struct {
	service *Service
	src     source
	report  *flight.Reporter
}

// Blob implements artifact.Source.
func (b blobs) Blob(ctx context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return open(ctx, b.src, b.report, d, offset)
}

// Archive implements artifact.Source.
func (b blobs) Archive(ctx context.Context, d ispec.Descriptor) (io.ReadCloser, error) {
	l, _, err := b.service.stream(ctx, d, layer.Mark{}, b.src, b.report)
	return l, err
}

// Done implements artifact.Source.
func (b blobs) Done(d ispec.Descriptor, fetched bool) {
	phase := flight.PhaseExists
	if fetched {
		phase = flight.PhaseDone
	}
	b.report.Layer(d, d.Size, phase)
}

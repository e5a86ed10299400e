package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/flight"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/pkg/image/stream"
)

// source gives the blobs of an image that is being added, from an offset in bytes
// on; they are not verified yet. Reading ends when ctx does.
type source interface {
	Blob(ctx context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// add brings an image here from its manifest: content first, then its record and
// its references, so that nothing of it is visible before all of it is. The
// layers come in parallel, each as one stream: download, verify, inflate, verify,
// unpack.
func (s *Service) add(ctx context.Context, m manifest.Document, src source, refs []string, handler string, report *flight.Reporter) (Image, error) {
	form, index, err := manifest.Parse(m)
	if err != nil {
		return Image{}, err
	}
	if index != nil {
		return Image{}, fmt.Errorf("manifest %s: an index where an image was expected: %w", m.Desc.Digest, errs.Invalid)
	}
	if artifact.Is(*form) {
		return s.addArtifact(ctx, m, *form, src, refs, handler, report)
	}
	lease := s.catalog.Lease(m.Desc.Digest, form.Config.Digest)
	defer lease.Release()
	config, err := s.addConfig(ctx, form.Config, src)
	if err != nil {
		return Image{}, err
	}
	if len(config.RootFS.DiffIDs) != len(form.Layers) {
		return Image{}, fmt.Errorf("image %s: %d layers but %d diffIDs: %w",
			form.Config.Digest, len(form.Layers), len(config.RootFS.DiffIDs), errs.Invalid)
	}
	r := catalog.Record{
		ID: form.Config.Digest, Manifest: m.Desc, Notes: form.Annotations,
		Size: form.Config.Size, Created: time.Now().UTC(), Config: config, Handlers: []string{handler},
	}
	for n, d := range form.Layers {
		r.Layers = append(r.Layers, catalog.Layer{DiffID: config.RootFS.DiffIDs[n], Blob: d})
		lease.Add(d.Digest, config.RootFS.DiffIDs[n])
	}
	infos, err := s.addLayers(ctx, r.Layers, src, report)
	if err != nil {
		return Image{}, err
	}
	for _, info := range infos {
		r.Size += info.Bytes
	}
	if r.Stack, err = s.layers.Stack(ctx, config.RootFS.DiffIDs, lease.Add); err == nil {
		r.Stack, err = s.settle(ctx, r, lease, false)
	}
	if err == nil && s.options.Directories[handler] && s.layers.Composed(r.Stack) {
		r.Trees, err = s.layers.Trees(ctx, config.RootFS.DiffIDs, lease.Add)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", r.ID, err)
	}
	if err := s.mend(ctx, m.Desc.Digest); err != nil {
		return Image{}, err
	}
	if err := s.blobs.Put(ctx, m.Desc.Digest, m.Desc.Size, bytes.NewReader(m.Data)); err != nil {
		return Image{}, err
	}
	return s.catalog.Save(ctx, r, refs)
}

// mend removes a blob that is damaged, so that it is brought again.
func (s *Service) mend(ctx context.Context, d digest.Digest) error {
	err := s.blobs.Verify(ctx, d)
	switch {
	case err == nil, errors.Is(err, errs.NotFound):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	klog.FromContext(ctx).Error(err, "Removing a damaged blob")
	return s.blobs.Remove(d)
}

// addConfig fetches, keeps and reads the config.
func (s *Service) addConfig(ctx context.Context, d ispec.Descriptor, src source) (ispec.Image, error) {
	if err := s.mend(ctx, d.Digest); err != nil {
		return ispec.Image{}, err
	}
	err := s.blobs.Bring(ctx, d.Digest, d.Size, func(offset int64) (io.ReadCloser, error) { return src.Blob(ctx, d, offset) })
	if err != nil {
		return ispec.Image{}, fmt.Errorf("image config: %w", mismatch(err))
	}
	data, err := s.blobs.ReadAll(d.Digest, manifest.MaxConfig)
	if err != nil {
		return ispec.Image{}, err
	}
	return manifest.ParseConfig(data)
}

// mismatch gives content that is not what was promised its kind. A stream that
// ended early may be whole the next time.
func mismatch(err error) error {
	if !errors.Is(err, blob.ErrMismatch) || errs.Of(err) != "" {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", err, errs.Unavailable)
	}
	return fmt.Errorf("%w: %w", err, errs.Invalid)
}

func (s *Service) addLayers(ctx context.Context, layers []catalog.Layer, src source, report *flight.Reporter) ([]layer.Info, error) {
	infos := make([]layer.Info, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.downloads.Load().layers)
	for n, l := range layers {
		group.Go(func() error {
			var err error
			infos[n], err = s.addLayer(ctx, l, src, report)
			return mismatch(err)
		})
	}
	return infos, group.Wait()
}

// distrust tells a source that a blob of it was wrong, and returns whether the blob
// may be better the next time.
func distrust(src source, d digest.Digest, err error) (again bool, _ error) {
	if r, ok := src.(interface {
		Distrust(d digest.Digest, err error) (others bool, _ error)
	}); ok {
		return r.Distrust(d, err)
	}
	return false, err
}

// addLayer makes one layer present, unpacked and, where blobs are kept, as it
// came.
func (s *Service) addLayer(ctx context.Context, l catalog.Layer, src source, report *flight.Reporter) (layer.Info, error) {
	if err := s.suspects.Settle(ctx, l.DiffID); err != nil && !errors.Is(err, errs.NotFound) {
		return layer.Info{}, err
	}
	fetched, resumed, kept := false, false, s.blobs.Has(l.Blob.Digest)
	unpack := func() (layer.Info, error) {
		info, err := s.layers.Unpack(ctx, l.DiffID, func(from layer.Mark) (_ layer.Stream, err error) {
			fetched = true
			var t *stream.Stream
			t, resumed, err = s.stream(ctx, l.Blob, from, src, report)
			return t, err
		})
		if errs.Of(mismatch(err)) == errs.Invalid {
			err = errors.Join(err, s.blobs.Forget(l.Blob.Digest))
		}
		return info, err
	}
	info, err := unpack()
	damaged := err != nil && kept && s.mend(ctx, l.Blob.Digest) == nil && !s.blobs.Has(l.Blob.Digest)
	if damaged || resumed && errs.Of(mismatch(err)) == errs.Invalid {
		info, err = unpack() // without what was here
	}
	for again := true; again && errs.Of(mismatch(err)) == errs.Invalid; {
		if again, err = distrust(src, l.Blob.Digest, err); again {
			info, err = unpack()
		}
	}
	if err != nil {
		return info, err
	}
	if s.options.KeepBlobs {
		from := func(offset int64) (io.ReadCloser, error) { return open(ctx, src, report, l.Blob, offset) }
		if err := s.blobs.Bring(ctx, l.Blob.Digest, l.Blob.Size, from); err != nil {
			return info, err
		}
	}
	phase := flight.PhaseDone
	if !fetched {
		phase = flight.PhaseExists
	}
	report.Layer(l.Blob, l.Blob.Size, phase)
	return info, nil
}

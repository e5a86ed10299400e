// Package save writes images that are here as archives.
package save

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/archive"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/export"
	"github.com/berth-run/berth/pkg/image/manifest"
)

// Writer writes one archive. Layers that several images have are written once.
type Writer struct {
	out         *archive.Writer
	exporter    *export.Exporter
	blobs       *blob.Store
	compression export.Compression
	packed      map[digest.Digest]ispec.Descriptor // by diffID
}

// NewWriter writes an archive to w. Layers that are not kept as they were pulled are
// compressed so.
func NewWriter(w io.Writer, e *export.Exporter, blobs *blob.Store, compression export.Compression) *Writer {
	return &Writer{out: archive.NewWriter(w), exporter: e, blobs: blobs, compression: compression, packed: map[digest.Digest]ispec.Descriptor{}}
}

// Close ends the archive.
func (w *Writer) Close() error { return w.out.Close() }

// OCI adds an image under its names, as an entry of an OCI image layout.
func (w *Writer) OCI(ctx context.Context, r catalog.Record, names []string) error {
	manifest, err := w.manifest(ctx, r)
	if err != nil {
		return err
	}
	config := ispec.Descriptor{Digest: r.ID}
	if r.Artifact != nil {
		config = r.Artifact.Config
	}
	if err := w.kept(ctx, archive.BlobName(config.Digest), config); err != nil {
		return err
	}
	if err := w.write(ctx, archive.BlobName(manifest.Digest), manifest); err != nil {
		return err
	}
	d := manifest.Descriptor
	if r.Artifact == nil {
		d.Platform = &ispec.Platform{OS: r.Config.OS, Architecture: r.Config.Architecture, Variant: r.Config.Variant}
	}
	w.out.AddOCI(d, names)
	return nil
}

// manifest writes the layers, and returns what names them.
func (w *Writer) manifest(ctx context.Context, r catalog.Record) (*export.Blob, error) {
	data, err := w.blobs.ReadAll(r.Manifest.Digest, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	var layers []ispec.Descriptor
	for _, l := range r.Layers {
		if r.Artifact != nil {
			if err := w.kept(ctx, archive.BlobName(l.Blob.Digest), l.Blob); err != nil {
				return nil, err
			}
			layers = append(layers, l.Blob)
			continue
		}
		d, err := w.layer(ctx, l)
		if err != nil {
			return nil, err
		}
		layers = append(layers, d)
	}
	return export.Manifest(r.Manifest, data, layers)
}

// layer writes a layer, once, and describes what it is in the archive.
func (w *Writer) layer(ctx context.Context, l catalog.Layer) (ispec.Descriptor, error) {
	if d, ok := w.packed[l.DiffID]; ok {
		return d, nil
	}
	b, err := w.exporter.Layer(ctx, export.Layer(l), w.compression, nil)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	w.packed[l.DiffID] = b.Descriptor
	return b.Descriptor, errors.Join(w.write(ctx, archive.BlobName(b.Digest), b), b.Close())
}

// Docker adds an image under its names, as an entry of the docker form, whose layers
// are uncompressed.
func (w *Writer) Docker(ctx context.Context, r catalog.Record, names []string) error {
	if r.Artifact != nil {
		return fmt.Errorf("a docker archive holds no artifacts: choose the format oci: %w", errs.Unsupported)
	}
	config := r.ID.Encoded() + ".json"
	if err := w.kept(ctx, config, ispec.Descriptor{Digest: r.ID}); err != nil {
		return err
	}
	var layers []string
	for _, l := range r.Layers {
		name := l.DiffID.Encoded() + "/layer.tar"
		layers = append(layers, name)
		if w.out.Has(name) {
			continue
		}
		b, err := w.exporter.Tar(ctx, export.Layer(l))
		if err != nil {
			return err
		}
		if err := w.write(ctx, name, b); err != nil {
			return err
		}
	}
	w.out.AddDocker(config, layers, names)
	return nil
}

// kept writes a blob that is here as it is.
func (w *Writer) kept(ctx context.Context, name string, d ispec.Descriptor) error {
	b, err := w.exporter.Kept(d)
	if errors.Is(err, errs.NotFound) {
		err = fmt.Errorf("blob %s is not kept as it was pulled: set keep_blobs = true and pull it again: %w", d.Digest, errs.Unsupported)
	}
	if err != nil {
		return err
	}
	return w.write(ctx, name, b)
}

func (w *Writer) write(ctx context.Context, name string, b *export.Blob) error {
	return w.out.File(ctx, name, b.Size, func(ctx context.Context) (io.ReadCloser, error) { return b.Open(ctx, 0) })
}

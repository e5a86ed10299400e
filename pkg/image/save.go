package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/archive"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/export"
	"github.com/berth-run/berth/pkg/image/manifest"
)

// Format is the form of an archive.
type Format string

// The formats of Save.
const (
	FormatOCI    Format = "oci"    // an OCI image layout
	FormatDocker Format = "docker" // what `docker load` of any age reads
)

// SaveOptions say how Save writes. The zero value works.
type SaveOptions struct {
	Format Format // default FormatOCI
	// Compression is that of layers that are not kept as they were pulled: none, the
	// default, gzip or zstd. A docker archive has none.
	Compression string
}

// Save writes images as an archive. Each image is named as ref names it; an id
// gives all its tags. Where its layers are not kept as they were pulled they are
// made of their tar streams: the manifest is another one then, the image's id is
// not. The error is of kind Unsupported where there are no tar streams either.
func (s *Service) Save(ctx context.Context, refs []string, o SaveOptions, w io.Writer) error {
	compression, err := export.ParseCompression(o.Compression, export.None)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	sv := saver{service: s, out: archive.NewWriter(w), compression: compression, packed: map[digest.Digest]ispec.Descriptor{}}
	for _, ref := range refs {
		r, names, release, err := s.saved(ref)
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
		switch o.Format {
		case FormatOCI, "":
			err = sv.addOCI(ctx, r, names)
		case FormatDocker:
			err = sv.addDocker(ctx, r, names)
		default:
			err = fmt.Errorf("format %.50q: %w", o.Format, errs.Invalid)
		}
		release()
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
	}
	if err := sv.out.Close(); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// saved returns an image's record, leased with all that Save reads, and the names
// to save it under.
func (s *Service) saved(ref string) (r catalog.Record, names []string, release func(), err error) {
	lease := s.catalog.Lease()
	err = s.catalog.Do(func(tx *catalog.Tx) error {
		x := s.catalog.Index()
		i, err := s.find(x, ref)
		if err != nil {
			return err
		}
		r, _ = tx.Record(i.ID)
		lease.AddIn(tx, append(r.Content(), r.DiffIDs()...)...)
		names = i.RepoTags
		if name := s.downloads.Load().localName(x, ref); x.Has(name) {
			names = []string{name}
		}
		return nil
	})
	return r, names, lease.Release, err
}

type saver struct {
	service     *Service
	out         *archive.Writer
	compression export.Compression
	packed      map[digest.Digest]ispec.Descriptor // by diffID
}

func (sv *saver) addOCI(ctx context.Context, r catalog.Record, names []string) error {
	manifest, err := sv.manifest(ctx, r)
	if err != nil {
		return err
	}
	config := ispec.Descriptor{Digest: r.ID}
	if r.Artifact != nil {
		config = r.Artifact.Config
	}
	if err := sv.kept(ctx, archive.BlobName(config.Digest), config); err != nil {
		return err
	}
	if err := sv.write(ctx, archive.BlobName(manifest.Digest), manifest); err != nil {
		return err
	}
	d := manifest.Descriptor
	if r.Artifact == nil {
		d.Platform = &ispec.Platform{OS: r.Config.OS, Architecture: r.Config.Architecture, Variant: r.Config.Variant}
	}
	sv.out.AddOCI(d, names)
	return nil
}

// manifest writes the layers, and returns what names them.
func (sv *saver) manifest(ctx context.Context, r catalog.Record) (*export.Blob, error) {
	data, err := sv.service.blobs.ReadAll(r.Manifest.Digest, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	var layers []ispec.Descriptor
	for _, l := range r.Layers {
		if r.Artifact != nil {
			if err := sv.kept(ctx, archive.BlobName(l.Blob.Digest), l.Blob); err != nil {
				return nil, err
			}
			layers = append(layers, l.Blob)
			continue
		}
		d, err := sv.layer(ctx, l)
		if err != nil {
			return nil, err
		}
		layers = append(layers, d)
	}
	return export.Manifest(r.Manifest, data, layers)
}

// layer writes a layer, once, and describes what it is in the archive.
func (sv *saver) layer(ctx context.Context, l catalog.Layer) (ispec.Descriptor, error) {
	if d, ok := sv.packed[l.DiffID]; ok {
		return d, nil
	}
	b, err := sv.service.exporter().Layer(ctx, export.Layer(l), sv.compression, nil)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	sv.packed[l.DiffID] = b.Descriptor
	return b.Descriptor, errors.Join(sv.write(ctx, archive.BlobName(b.Digest), b), b.Close())
}

func (s *Service) exporter() *export.Exporter {
	return export.New(s.blobs, s.layers, s.pool, s.spoolDir())
}

// addDocker writes layers uncompressed: that is what the format has.
func (sv *saver) addDocker(ctx context.Context, r catalog.Record, names []string) error {
	if r.Artifact != nil {
		return fmt.Errorf("a docker archive holds no artifacts: choose the format %s: %w", FormatOCI, errs.Unsupported)
	}
	config := r.ID.Encoded() + ".json"
	if err := sv.kept(ctx, config, ispec.Descriptor{Digest: r.ID}); err != nil {
		return err
	}
	var layers []string
	for _, l := range r.Layers {
		name := l.DiffID.Encoded() + "/layer.tar"
		layers = append(layers, name)
		if sv.out.Has(name) {
			continue
		}
		b, err := sv.service.exporter().Tar(ctx, export.Layer(l))
		if err != nil {
			return err
		}
		if err := sv.write(ctx, name, b); err != nil {
			return err
		}
	}
	sv.out.AddDocker(config, layers, names)
	return nil
}

// kept writes a blob that is here as it is.
func (sv *saver) kept(ctx context.Context, name string, d ispec.Descriptor) error {
	b, err := sv.service.exporter().Kept(d)
	if errors.Is(err, errs.NotFound) {
		err = fmt.Errorf("blob %s is not kept as it was pulled: set keep_blobs = true and pull it again: %w", d.Digest, errs.Unsupported)
	}
	if err != nil {
		return err
	}
	return sv.write(ctx, name, b)
}

func (sv *saver) write(ctx context.Context, name string, b *export.Blob) error {
	return sv.out.File(ctx, name, b.Size, func(ctx context.Context) (io.ReadCloser, error) { return b.Open(ctx, 0) })
}

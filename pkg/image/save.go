package image

import (
	"context"
	"fmt"
	"io"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/export"
	"github.com/berth-run/berth/pkg/image/save"
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
	out := save.NewWriter(w, s.exporter(), s.blobs, compression)
	for _, ref := range refs {
		r, names, release, err := s.saved(ref)
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
		switch o.Format {
		case FormatOCI, "":
			err = out.OCI(ctx, r, names)
		case FormatDocker:
			err = out.Docker(ctx, r, names)
		default:
			err = fmt.Errorf("format %.50q: %w", o.Format, errs.Invalid)
		}
		release()
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
	}
	if err := out.Close(); err != nil {
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

func (s *Service) exporter() *export.Exporter {
	return export.New(s.blobs, s.layers, s.pool, s.spoolDir())
}

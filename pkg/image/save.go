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
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/inflate"
)

// Format is the form of an archive.
type Format string

// The formats of Save.
const (
	FormatOCI    Format = "oci"    // an OCI image layout
	FormatDocker Format = "docker" // what `docker load` of any age reads
)

// Save writes images as an archive. Each image is named as ref names it; an id
// gives all its tags. It needs the layers as they were pulled: the error is of
// kind Unsupported where they are not kept.
func (s *Service) Save(ctx context.Context, refs []string, format Format, w io.Writer) error {
	sv := saver{service: s, out: archive.NewWriter(w)}
	for _, ref := range refs {
		r, names, release, err := s.saved(ref)
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
		switch format {
		case FormatOCI:
			err = sv.addOCI(ctx, r, names)
		case FormatDocker:
			err = sv.addDocker(ctx, r, names)
		default:
			err = fmt.Errorf("format %.50q: %w", format, errs.Invalid)
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

// saved returns an image's record, leased, and the names to save it under.
func (s *Service) saved(ref string) (record, []string, func(), error) {
	s.mu.Lock()
	i, err := s.Get(ref)
	r := s.records[i.ID]
	s.mu.Unlock()
	if err != nil {
		return r, nil, nil, err
	}
	l := s.lease(r.content()...)
	names := i.RepoTags
	x := s.index.Load()
	if name := s.downloads.Load().localName(x, ref); x.has(name) {
		names = []string{name}
	}
	return r, names, l.release, nil
}

func (x *index) has(name string) bool { _, ok := x.byRef[name]; return ok }

type saver struct {
	service *Service
	out     *archive.Writer
}

func (sv *saver) addOCI(ctx context.Context, r record, names []string) error {
	for _, d := range r.content() {
		if err := sv.blob(ctx, archive.BlobName(d), d); err != nil {
			return err
		}
	}
	d := ispec.Descriptor{MediaType: r.Manifest.MediaType, Digest: r.Manifest.Digest, Size: r.Manifest.Size}
	if r.Artifact == nil {
		d.Platform = &ispec.Platform{OS: r.config.OS, Architecture: r.config.Architecture, Variant: r.config.Variant}
	}
	sv.out.AddOCI(d, names)
	return nil
}

// addDocker writes layers uncompressed: that is what the format has.
func (sv *saver) addDocker(ctx context.Context, r record, names []string) error {
	if r.Artifact != nil {
		return fmt.Errorf("a docker archive holds no artifacts: choose the format %s: %w", FormatOCI, errs.Unsupported)
	}
	config := r.ID.Encoded() + ".json"
	if err := sv.blob(ctx, config, r.ID); err != nil {
		return err
	}
	var layers []string
	for _, l := range r.Layers {
		name := l.DiffID.Encoded() + "/layer.tar"
		layers = append(layers, name)
		if err := sv.layer(ctx, name, l); err != nil {
			return err
		}
	}
	sv.out.AddDocker(config, layers, names)
	return nil
}

// blob writes one blob.
func (sv *saver) blob(ctx context.Context, name string, d digest.Digest) error {
	if sv.out.Has(name) {
		return nil
	}
	size, err := sv.service.blobs.Size(d)
	if err != nil {
		return err
	}
	return sv.out.File(ctx, name, size, func(ctx context.Context) (io.ReadCloser, error) {
		f, err := sv.open(d)
		if err != nil {
			return nil, err
		}
		return verified{blob.NewVerifier(blob.ContextReader(ctx, f), d, size), f}, nil
	})
}

// verified is a stream that is verified as it is read.
type verified struct {
	io.Reader
	io.Closer
}

func (sv *saver) open(d digest.Digest) (io.ReadCloser, error) {
	f, err := sv.service.blobs.Open(d)
	if errors.Is(err, errs.NotFound) {
		return nil, fmt.Errorf("layer %s is not kept as it was pulled (keep_blobs is off): %w", d, errs.Unsupported)
	}
	return f, err
}

// layer inflates a layer twice: a tar header comes before the content and has
// its size.
func (sv *saver) layer(ctx context.Context, name string, l layerRecord) error {
	if sv.out.Has(name) {
		return nil
	}
	plain, err := sv.inflate(ctx, l)
	if err != nil {
		return err
	}
	size, err := io.Copy(io.Discard, plain)
	if err := errors.Join(err, plain.Close()); err != nil {
		return err
	}
	return sv.out.File(ctx, name, size, func(ctx context.Context) (io.ReadCloser, error) {
		plain, err := sv.inflate(ctx, l)
		if err != nil {
			return nil, err
		}
		return verified{blob.NewVerifier(plain, l.DiffID, size), plain}, nil
	})
}

func (sv *saver) inflate(ctx context.Context, l layerRecord) (io.ReadCloser, error) {
	f, err := sv.open(l.Blob.Digest)
	if err != nil {
		return nil, err
	}
	plain, err := inflate.Stream(blob.ContextReader(ctx, f))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return inflated{plain, f}, nil
}

// inflated is a blob's plain form.
type inflated struct {
	*inflate.Reader
	blob io.Closer
}

// Close implements io.Closer.
func (i inflated) Close() error { return errors.Join(i.Reader.Close(), i.blob.Close()) }

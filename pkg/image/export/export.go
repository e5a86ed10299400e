// Package export makes of the layers that are kept here what other places take:
// blobs with a digest and a size, and a manifest that names them.
//
// A layer goes out as it was pulled where that blob is kept, and else as its tar
// stream, packed again. Another packing has another digest, so the manifest
// becomes another one too; the config, and with it the image's id and the diffIDs,
// stay what they are. Packing the same stream twice gives the same bytes.
//
// What is packed lies in a file without a name until its Blob is closed: both a tar
// header and a registry want the size and the digest first. The caller holds the
// image so that nothing of it is collected meanwhile.
package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
)

// Layer is one layer of an image, in both its forms.
type Layer struct {
	DiffID digest.Digest
	Blob   ispec.Descriptor // as it was pulled
}

// Exporter gives layers out. Its methods are safe for concurrent use.
type Exporter struct {
	blobs    *blob.Store
	layers   *layer.Store
	decoders *inflate.Pool
	dir      string
}

// New returns an Exporter of two stores that packs layers in dir.
func New(blobs *blob.Store, layers *layer.Store, decoders *inflate.Pool, dir string) *Exporter {
	return &Exporter{blobs: blobs, layers: layers, decoders: decoders, dir: dir}
}

// Blob is content on its way out. The zero value has none.
type Blob struct {
	ispec.Descriptor
	open    func(ctx context.Context, offset int64) (io.ReadCloser, error)
	checked bool     // what open gives is verified, or was just made
	file    *os.File // what was packed
}

// Open opens the content from an offset in bytes on. What is read from its
// beginning is verified: its end is reached only if its digest was right.
func (b *Blob) Open(ctx context.Context, offset int64) (io.ReadCloser, error) {
	r, err := b.open(ctx, offset)
	if err != nil || offset > 0 || b.checked {
		return r, err
	}
	return stream{blob.NewVerifier(r, b.Digest, b.Size), r}, nil
}

// Close lets go of what was packed.
func (b *Blob) Close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

// stream is a reader with what must be closed.
type stream struct {
	io.Reader
	io.Closer
}

// Kept returns a blob that is here as it is; the error is of kind NotFound where it
// is not.
func (e *Exporter) Kept(d ispec.Descriptor) (*Blob, error) {
	size, err := e.blobs.Size(d.Digest)
	if err != nil {
		return nil, err
	}
	d.Size = size
	return &Blob{Descriptor: d, open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		f, err := e.blobs.Open(d.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return stream{blob.ContextReader(ctx, f), f}, nil
	}}, nil
}

// Layer returns a layer as it was pulled, or else packed by c. progress, if not
// nil, is told how many bytes of the tar stream have been packed. The caller closes
// the blob.
func (e *Exporter) Layer(ctx context.Context, l Layer, c Compression, progress func(done, total int64)) (*Blob, error) {
	b, err := e.Kept(l.Blob)
	if !errors.Is(err, errs.NotFound) {
		return b, err
	}
	plain, err := e.Tar(ctx, l)
	if err != nil || c == None {
		return plain, err
	}
	return e.pack(ctx, plain, c, progress)
}

// Tar returns the tar stream of a layer, of which the digest is the diffID. The
// error is of kind Unsupported where neither the stream nor the blob is kept.
func (e *Exporter) Tar(ctx context.Context, l Layer) (*Blob, error) {
	d := ispec.Descriptor{MediaType: ispec.MediaTypeImageLayer, Digest: l.DiffID}
	open := func(ctx context.Context) (io.ReadCloser, error) { return e.layers.Tar(ctx, l.DiffID) }
	info, err := e.layers.Info(l.DiffID)
	switch {
	case err != nil:
		return nil, err
	case info.Tar > 0:
		d.Size = info.Tar
	case e.blobs.Has(l.Blob.Digest):
		open = func(ctx context.Context) (io.ReadCloser, error) { return e.inflate(ctx, l.Blob.Digest) }
		if d.Size, err = size(ctx, open); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("layer %s is kept as a directory only, of which no archive with the same digest can be made: set keep_blobs = true and pull the image again: %w",
			l.DiffID, errs.Unsupported)
	}
	return &Blob{Descriptor: d, checked: info.Tar > 0, open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		r, err := open(ctx)
		if err != nil || offset == 0 {
			return r, err
		}
		if _, err := io.CopyN(io.Discard, r, offset); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return r, nil
	}}, nil
}

// size counts the bytes of a stream.
func size(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (int64, error) {
	r, err := open(ctx)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, r)
	return n, errors.Join(err, r.Close())
}

// inflate returns the plain form of a blob.
func (e *Exporter) inflate(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	f, err := e.blobs.Open(d)
	if err != nil {
		return nil, err
	}
	plain, err := e.decoders.Stream(ctx, blob.ContextReader(ctx, f))
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

package image

import (
	"context"
	"errors"
	"io"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/flight"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/stream"
)

// stream opens a layer's tar stream: from the blob that is here, or else from src,
// which is kept if it is read from its beginning.
func (s *Service) stream(ctx context.Context, d ispec.Descriptor, from layer.Mark, src source, report *flight.Reporter) (*stream.Stream, error) {
	if s.blobs.Has(d.Digest) {
		return stream.Open(ctx, s.buffers, stream.Source{Blob: d, Open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
			f, err := s.blobs.Open(d.Digest)
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(offset, io.SeekStart); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		}}, from)
	}
	remote := stream.Source{Blob: d, Open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		body, err := src.Blob(ctx, d, offset)
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{report.Reader(body, d, offset), body}, nil
	}}
	if s.options.KeepBlobs && from.Offset == 0 {
		var err error
		if remote.Keep, err = s.blobs.Create(d.Digest, d.Size); err != nil {
			return nil, err
		}
	}
	return stream.Open(ctx, s.buffers, remote, from)
}

package image

import (
	"context"
	"io"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/flight"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/stream"
)

// stream opens a layer's tar stream: from the blob that is here, or else from src,
// which is kept if it is read from its beginning. resumed says that a part of the
// blob was here.
func (s *Service) stream(ctx context.Context, d ispec.Descriptor, from layer.Mark, src source, report *flight.Reporter) (_ *stream.Stream, resumed bool, err error) {
	fetch := func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		return open(ctx, src, report, d, offset)
	}
	here, keep := s.blobs.Has(d.Digest), (*blob.Writer)(nil)
	if !here && s.options.KeepBlobs && from.Offset == 0 {
		if keep, err = s.blobs.Continue(ctx, d.Digest, d.Size); err != nil {
			return nil, false, err
		}
		here = keep == nil
	}
	in := stream.Source{Blob: d, Keep: keep, Open: fetch}
	switch {
	case here:
		in.Open = func(_ context.Context, offset int64) (io.ReadCloser, error) { return s.blobs.OpenAt(d.Digest, offset) }
	case keep != nil:
		resumed = keep.Resumed()
		in.Open = func(ctx context.Context, _ int64) (io.ReadCloser, error) { // from its beginning
			return keep.From(func(offset int64) (io.ReadCloser, error) { return fetch(ctx, offset) }), nil
		}
	}
	l, err := stream.Open(ctx, s.pool, in, from)
	return l, resumed, err
}

// open opens a blob that is counted as it comes.
func open(ctx context.Context, src source, report *flight.Reporter, d ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	body, err := src.Blob(ctx, d, offset)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{report.Reader(body, d, offset), body}, nil
}

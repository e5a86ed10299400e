package artifact

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/pkg/image/blob"
)

// Source is where the content of an artifact comes from.
type Source interface {
	// Blob gives a blob as it is, from an offset in bytes on; it is not verified yet.
	Blob(ctx context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, error)
	// Archive gives the tar stream of a blob, whose end is reached only where the
	// blob was right.
	Archive(ctx context.Context, d ispec.Descriptor) (io.ReadCloser, error)
	// Done is told of each blob that is here, and whether it had to be fetched.
	Done(d ispec.Descriptor, fetched bool)
}

// atOnce bounds the files of one artifact that are fetched at a time.
const atOnce = 4

// Added is a tree that Add has found or made.
type Added struct {
	Name string
	Size int64 // in bytes, of files and of what is unpacked
}

// Add brings the content of an artifact here: its files become blobs, and a tree
// shows them with what its archives hold. A tree that is there already, old, is
// kept where it is whole.
func (s *Store) Add(ctx context.Context, id digest.Digest, files []File, old string, src Source) (Added, error) {
	unlock, err := s.locks.Lock(ctx, id.String()) // the same may be pulled by another name
	if err != nil {
		return Added{}, err
	}
	defer unlock()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, f := range files {
		if !f.Archive() {
			group.Go(func() error { return s.Fetch(groupCtx, f.Blob, src) })
		}
	}
	if err := group.Wait(); err != nil {
		return Added{}, err
	}
	a := Added{Name: old}
	if old == "" || s.Linked(old, files) != nil {
		if a.Name, err = s.build(ctx, id, files, src); err != nil {
			return a, err
		}
	}
	info, err := s.Info(a.Name)
	if err != nil {
		return a, err
	}
	a.Size = info.Bytes
	counted := map[digest.Digest]bool{}
	for _, f := range files {
		switch {
		case f.Archive():
			src.Done(f.Blob, a.Name != old)
		case !counted[f.Blob.Digest]:
			counted[f.Blob.Digest] = true
			a.Size += f.Blob.Size
		}
	}
	return a, nil
}

// Fetch brings one blob, once for all that want it at a time.
func (s *Store) Fetch(ctx context.Context, d ispec.Descriptor, src Source) error {
	unlock, err := s.locks.Lock(ctx, "blob "+d.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	size, err := s.blobs.Size(d.Digest)
	if err == nil && size == d.Size {
		src.Done(d, false)
		return nil
	}
	if err == nil {
		if s.blobs.Verify(ctx, d.Digest) == nil {
			return fmt.Errorf("blob %s: has %d bytes, not %d: %w", d.Digest, size, d.Size, blob.ErrMismatch)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.blobs.Remove(d.Digest); err != nil { // damaged
			return err
		}
	}
	open := func(offset int64) (io.ReadCloser, error) { return src.Blob(ctx, d, offset) }
	if err := s.blobs.Bring(ctx, d.Digest, d.Size, open); err != nil {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	src.Done(d, true)
	return nil
}

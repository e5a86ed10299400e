package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/partial"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// maxTail bounds what may follow the end of a tar stream: padding.
const maxTail = 64 << 20

// Mark is a position in a layer's tar stream from which the stream can be opened
// again, by another process too. The zero Mark is the beginning.
type Mark = partial.Mark

// Stream is a layer's tar stream, uncompressed.
type Stream interface {
	io.ReadCloser
	// Mark returns the last position, at most as far as what has been read, from
	// which the stream can be opened again; false where it has none.
	Mark() (Mark, bool)
}

// Unpack makes the layer diffID from its tar stream and returns once it is whole,
// verified and on disk. A layer that is there already is left alone. open is
// called only if the stream is needed, with where to begin; two callers for one
// layer share the work of the first. Where a stream opened at a mark, or open itself
// there, fails with an error of kind Invalid or Unsupported or blob.ErrMismatch, the
// layer begins anew.
func (s *Store) Unpack(ctx context.Context, diffID digest.Digest, open func(from Mark) (Stream, error)) (Info, error) {
	if err := blob.Validate(diffID); err != nil {
		return Info{}, err
	}
	unlock, err := s.locks.Lock(ctx, name(diffID))
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	switch {
	case s.has(diffID, treeRecord):
		return s.read(diffID, treeRecord)
	case s.has(diffID, tarRecord) && s.erofs:
		return s.read(diffID, tarRecord)
	case s.has(diffID, tarRecord):
		return s.derive(ctx, diffID)
	case s.erofs:
		return s.ingest(ctx, diffID, open)
	}
	r, err := open(Mark{})
	if err != nil {
		return Info{}, err
	}
	defer r.Close()
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return Info{}, room.Explain(err, s.dir, minRoom)
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	info, err := s.unpackInto(ctx, temp, diffID, r)
	if err == nil {
		err = s.commit(temp, info)
	}
	if err != nil {
		return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, room.Explain(err, temp, minRoom))
	}
	return info, nil
}

// derive makes the directory of a layer that is here as a tar stream. The caller
// holds the layer's lock.
func (s *Store) derive(ctx context.Context, diffID digest.Digest) (Info, error) {
	r, err := s.Tar(ctx, diffID)
	if err != nil {
		return Info{}, err
	}
	defer r.Close()
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return Info{}, room.Explain(err, s.dir, minRoom)
	}
	defer os.RemoveAll(temp)
	info, err := s.unpackInto(ctx, temp, diffID, r)
	if err == nil {
		err = s.record(temp, treeRecord, info)
	}
	if err != nil {
		return Info{}, fmt.Errorf("unpack layer %s from its tar stream: %w", diffID, room.Explain(err, temp, minRoom))
	}
	p := filepath.Join(s.dir, name(diffID))
	if err := os.RemoveAll(filepath.Join(p, treeDir)); err != nil { // of a crash, right here
		return Info{}, err
	}
	for _, n := range []string{treeDir, treeRecord} {
		if err := os.Rename(filepath.Join(temp, n), filepath.Join(p, n)); err != nil {
			return Info{}, err
		}
	}
	return info, statefile.SyncDir(p)
}

// deriveAll makes the directories that layers of one stack lack.
func (s *Store) deriveAll(ctx context.Context, diffIDs []digest.Digest) error {
	for _, d := range diffIDs {
		if s.has(d, treeRecord) || !s.has(d, tarRecord) {
			continue
		}
		unlock, err := s.locks.Lock(ctx, name(d))
		if err != nil {
			return err
		}
		if !s.has(d, treeRecord) {
			_, err = s.derive(ctx, d)
		}
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// minRoom is what making a name or a directory may need: a block.
const minRoom = 4 << 10

// record puts what is in temp on disk, then says that it is whole.
func (s *Store) record(temp, record string, info Info) error {
	if err := s.marks.Add(name(info.DiffID)); err != nil {
		return err
	}
	if err := s.sync.do(s.dir); err != nil {
		return err
	}
	err := statefile.WriteDurable(filepath.Join(temp, record), info)
	if errors.Is(err, statefile.ErrTooLarge) {
		return fmt.Errorf("layer leaves too much to the layers below: %w: %w", err, errs.Invalid)
	}
	return err
}

// commit puts a tree on disk, then says that it is whole, then gives it its
// name.
func (s *Store) commit(temp string, info Info) error {
	if err := s.record(temp, treeRecord, info); err != nil {
		return err
	}
	return s.rename(temp, info.DiffID)
}

// rename gives a layer that is whole and on disk its name, in the place of a
// damaged one.
func (s *Store) rename(temp string, diffID digest.Digest) error {
	p := filepath.Join(s.dir, name(diffID))
	if _, err := os.Lstat(p); err == nil { // a damaged layer of that name
		aside, err := s.setAside(p)
		if err != nil {
			return err
		}
		defer os.RemoveAll(aside)
	}
	if err := os.Rename(temp, p); err != nil {
		return err
	}
	return errors.Join(statefile.SyncDir(s.dir), s.marks.Trust(name(diffID)), s.mounts.dropAll(diffID))
}

func (s *Store) unpackInto(ctx context.Context, temp string, diffID digest.Digest, r io.Reader) (Info, error) {
	v := blob.NewVerifier(blob.ContextReader(ctx, r), diffID, -1)
	made, err := directory.Unpack(ctx, filepath.Join(temp, treeDir), v, s.options.Limits)
	if err != nil {
		return Info{}, err
	}
	if err := v.Drain(maxTail); err != nil {
		return Info{}, err
	}
	return Info{Version: infoVersion, DiffID: diffID, Made: made}, nil
}

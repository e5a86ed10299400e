package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/belt"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/tree"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// ingest makes a layer of its tar stream, which it keeps as it is, in
// .partial-<name>, which becomes the layer. Where the stream has marks, they are
// written to a journal there when what lies before them is on disk; the next
// process that is asked for the layer reads the beginning again, for the digest and
// the index, and opens the stream at the mark. Nothing of the beginning is trusted:
// if the whole has another digest, it begins anew.
func (s *Store) ingest(ctx context.Context, diffID digest.Digest, open func(Mark) (Stream, error)) (Info, error) {
	part, err := s.openPartial(diffID)
	if err != nil {
		return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, room.Explain(err, s.dir, minRoom))
	}
	resumed := part.last.Offset > 0
	x, err := part.receive(ctx, s.options.Limits, open)
	if err != nil && resumed && ctx.Err() == nil && (errs.Of(err) == errs.Invalid || errors.Is(err, blob.ErrMismatch)) {
		if err = part.forget(); err == nil {
			x, err = part.receive(ctx, s.options.Limits, open)
		}
	}
	if err != nil {
		err = room.Explain(err, part.file.Name(), 0)
		bad := errs.Of(err) == errs.Invalid || errors.Is(err, blob.ErrMismatch) || errors.Is(err, errs.Exhausted)
		part.abandon(!bad)
		return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, err)
	}
	info, err := s.finish(part, x)
	if err == nil {
		err = s.rename(part.dir, diffID)
	}
	if err == nil {
		return info, nil
	}
	if err = room.Explain(err, part.dir, 0); errors.Is(err, errs.Exhausted) {
		_ = os.RemoveAll(part.dir) // others need the room; what stays is swept
	}
	return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, err)
}

// receive reads the stream to its end, from where the file ends.
func (p *partial) receive(ctx context.Context, limits entry.Limits, open func(Mark) (Stream, error)) (*tree.Index, error) {
	mark := p.last
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := belt.New(p.diffID, limits, cancel)
	err := b.Carry(blob.ContextReader(ctx, io.NewSectionReader(p.file, 0, mark.Offset)), nil)
	if err == nil {
		err = p.file.Truncate(mark.Offset)
	}
	if err == nil {
		err = p.carry(ctx, b, mark, open)
	}
	x, ended := b.End(err == nil)
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	if err == nil {
		err = ended
	}
	return x, err
}

func (p *partial) carry(ctx context.Context, b *belt.Belt, mark Mark, open func(Mark) (Stream, error)) error {
	r, err := open(mark)
	if err != nil {
		return err
	}
	defer r.Close()
	at := mark.Offset
	use := func(data []byte) error {
		if n, err := p.file.WriteAt(data, at); err != nil {
			return room.Explain(err, p.file.Name(), int64(len(data)-n))
		}
		at += int64(len(data))
		if m, ok := r.Mark(); ok && m.Offset <= at {
			p.note(m)
		}
		return nil
	}
	if l, ok := r.(belt.Lender); ok {
		return b.CarryLent(ctx, l, use)
	}
	return b.Carry(blob.ContextReader(ctx, r), use)
}

// finish writes what belongs to a tar stream that is here, and its record, when all
// is on disk.
func (s *Store) finish(part *partial, x *tree.Index) (Info, error) {
	defer part.file.Close()
	if err := part.stop(); err != nil {
		return Info{}, err
	}
	st, err := part.file.Stat()
	if err != nil {
		return Info{}, err
	}
	size := st.Size()
	// Loop devices show whole blocks. The sync, or the record's, takes the mark along.
	if err := errors.Join(s.marks.Add(name(part.diffID)), part.file.Truncate((size+511)/512*512), part.file.Sync()); err != nil {
		return Info{}, err
	}
	index := x.Encode()
	stored := size + int64(len(index))
	if n := x.Spilled(); n > 0 {
		taken, err := spill(filepath.Join(part.dir, spillFile), part.file, x)
		if err != nil {
			return Info{}, err
		}
		stored += taken
	}
	if err := statefile.WriteBytes(filepath.Join(part.dir, indexFile), index, 0o600, true); err != nil {
		return Info{}, err
	}
	protect(part.file.Name(), s.options.Verity)
	info := Info{Version: infoVersion, DiffID: part.diffID, Made: directory.Made{Bytes: x.Bytes, Inodes: x.Inodes}, Tar: size, Stored: stored}
	if err := statefile.WriteDurable(filepath.Join(part.dir, tarRecord), info); err != nil {
		return Info{}, err
	}
	if err := os.Remove(filepath.Join(part.dir, journalFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Info{}, err
	}
	return info, nil
}

// spill writes the sparse files that cannot be shown from the tar, and returns what
// they take.
func spill(path string, tarFile io.ReaderAt, x *tree.Index) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := errors.Join(x.Spill(f, tarFile), f.Truncate(x.Spilled()), f.Sync()); err != nil {
		return 0, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	return st.Blocks * 512, err
}

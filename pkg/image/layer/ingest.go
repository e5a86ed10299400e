package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/belt"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/partial"
	"github.com/berth-run/berth/pkg/image/tree"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// beginning is the beginning of a layer's tar stream on disk. Its directory becomes
// the layer.
type beginning struct {
	*partial.File
	diffID digest.Digest
}

// ingest makes a layer of its tar stream, which it keeps as it is. Where the stream
// has marks, they are noted beside it (package partial); the next process that is
// asked for the layer reads the beginning again, for the digest and the index, and
// opens the stream at the mark. Nothing of the beginning is trusted: if the whole has
// another digest, it begins anew.
func (s *Store) ingest(ctx context.Context, diffID digest.Digest, open func(Mark) (Stream, error)) (Info, error) {
	f, err := partial.Open(s.dir, name(diffID), tarFile)
	if err != nil {
		return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, room.Explain(err, s.dir, minRoom))
	}
	part := &beginning{f, diffID}
	resumed := part.Last().Offset > 0
	x, err := part.receive(ctx, s.options.Limits, open)
	if err != nil && resumed && ctx.Err() == nil && (errs.Of(err) == errs.Invalid || errors.Is(err, errs.Unsupported) || errors.Is(err, blob.ErrMismatch)) {
		if err = part.Forget(); err == nil {
			x, err = part.receive(ctx, s.options.Limits, open)
		}
	}
	if err != nil {
		err = room.Explain(err, part.Name(), 0)
		bad := errs.Of(err) == errs.Invalid || errors.Is(err, blob.ErrMismatch) || errors.Is(err, errs.Exhausted)
		part.Abandon(!bad)
		return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, err)
	}
	info, err := s.finish(part, x)
	if err == nil {
		err = s.rename(part.Dir, diffID)
	}
	if err == nil {
		return info, nil
	}
	if err = room.Explain(err, part.Dir, 0); errors.Is(err, errs.Exhausted) {
		_ = os.RemoveAll(part.Dir) // others need the room; what stays is swept
	}
	return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, err)
}

// receive reads the stream to its end, from where the file ends.
func (p *beginning) receive(ctx context.Context, limits entry.Limits, open func(Mark) (Stream, error)) (*tree.Index, error) {
	mark := p.Last()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := belt.New(p.diffID, limits, cancel)
	err := b.Carry(blob.ContextReader(ctx, io.NewSectionReader(p, 0, mark.Offset)), nil)
	if err == nil {
		err = p.Truncate(mark.Offset)
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

func (p *beginning) carry(ctx context.Context, b *belt.Belt, mark Mark, open func(Mark) (Stream, error)) error {
	r, err := open(mark)
	if err != nil {
		return err
	}
	defer r.Close()
	at := mark.Offset
	use := func(data []byte) error {
		if n, err := p.WriteAt(data, at); err != nil {
			return room.Explain(err, p.Name(), int64(len(data)-n))
		}
		at += int64(len(data))
		if m, ok := r.Mark(); ok && m.Offset <= at {
			p.Note(m)
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
func (s *Store) finish(part *beginning, x *tree.Index) (Info, error) {
	defer part.Close()
	if err := part.Stop(); err != nil {
		return Info{}, err
	}
	st, err := part.Stat()
	if err != nil {
		return Info{}, err
	}
	size := st.Size()
	// Loop devices show whole blocks. The sync, or the record's, takes the mark along.
	if err := errors.Join(s.marks.Add(name(part.diffID)), part.Truncate((size+511)/512*512), part.Sync()); err != nil {
		return Info{}, err
	}
	index := x.Encode()
	stored := size + int64(len(index))
	if n := x.Spilled(); n > 0 {
		taken, err := spill(filepath.Join(part.Dir, spillFile), part, x)
		if err != nil {
			return Info{}, err
		}
		stored += taken
	}
	if err := statefile.WriteBytes(filepath.Join(part.Dir, indexFile), index, 0o600, true); err != nil {
		return Info{}, err
	}
	protect(part.Name(), s.options.Verity)
	info := Info{Version: infoVersion, DiffID: part.diffID, Made: directory.Made{Bytes: x.Bytes, Inodes: x.Inodes}, Tar: size, Stored: stored}
	if err := statefile.WriteDurable(filepath.Join(part.Dir, tarRecord), info); err != nil {
		return Info{}, err
	}
	return info, part.Done()
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

// Sweep removes beginnings of layers that nobody has gone on from for age.
func (s *Store) Sweep(age time.Duration) error {
	return partial.Sweep(s.dir, age, &s.locks)
}

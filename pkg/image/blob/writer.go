package blob

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/digester"
	"github.com/berth-run/berth/pkg/image/partial"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	dataFile = "data" // of a beginning
	// markStep is how many bytes lie between two marks of a beginning: what is
	// smaller has none, and begins anew.
	markStep = 1 << 20
)

// Writer receives one blob. It is for one goroutine: Write all of it, then Commit,
// and Close in any case, which removes what was not committed, or leaves it to be
// gone on with.
type Writer struct {
	f         *os.File
	path      string
	want      digest.Digest
	size      int64
	count     int64
	hash      hash.Hash
	committed bool

	// Of a Writer that goes on.
	part   *partial.File // absent without
	here   int64         // bytes that the file had
	bad    bool          // nobody goes on from it
	unlock func()
}

// Create begins a blob that must turn out to be d; a size below zero is not
// known.
func (s *Store) Create(d digest.Digest, size int64) (*Writer, error) {
	p, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.ingest(), d.Encoded()[:16]+"-")
	if err != nil {
		return nil, room.Explain(err, s.ingest(), max(size, 0))
	}
	return &Writer{f: f, path: p, want: d, size: size, hash: digester.New(d.Algorithm()), unlock: func() {}}, nil
}

// Continue is Create that goes on with what an earlier Writer of d has left, in an
// earlier process too: From gives what is here. It waits for who writes d already; the
// Writer is nil where the store holds d then.
func (s *Store) Continue(ctx context.Context, d digest.Digest, size int64) (*Writer, error) {
	p, err := s.path(d)
	if err != nil {
		return nil, err
	}
	unlock, err := s.bringing.Lock(ctx, name(d))
	if err != nil {
		return nil, err
	}
	if s.Has(d) {
		unlock()
		return nil, nil
	}
	w, err := s.resume(d, size)
	if err != nil {
		unlock()
		return nil, room.Explain(err, s.ingest(), max(size, 0))
	}
	w.path, w.unlock = p, unlock
	return w, nil
}

func (s *Store) resume(d digest.Digest, size int64) (*Writer, error) {
	part, err := partial.Open(s.ingest(), name(d), dataFile)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: part.File, part: part, want: d, size: size, hash: digester.New(d.Algorithm()), here: part.Last().Offset}
	if size >= 0 && w.here > size {
		w.here = 0
		err = part.Forget()
	}
	if err == nil {
		err = part.Truncate(w.here)
	}
	if err != nil {
		part.Abandon(false)
	}
	return w, err
}

// name is the key of d's lock, and what its beginning is called.
func name(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// Resumed reports whether the blob has a beginning that was here.
func (w *Writer) Resumed() bool { return w.here > 0 }

// From returns the whole blob, to be written to w: the bytes that are here, then what
// open gives from there on, which is closed with it.
func (w *Writer) From(open func(offset int64) (io.ReadCloser, error)) io.ReadCloser {
	return &continued{here: io.NewSectionReader(w.f, 0, w.here), at: w.here, open: open}
}

// continued reads what is here, then the rest.
type continued struct {
	here *io.SectionReader
	at   int64
	open func(offset int64) (io.ReadCloser, error)
	rest io.ReadCloser // absent until it is open
}

// Read implements io.Reader.
func (c *continued) Read(p []byte) (int, error) {
	if c.rest == nil {
		n, err := c.here.Read(p)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if c.rest, err = c.open(c.at); err != nil {
			c.rest = nil
			return 0, err
		}
	}
	return c.rest.Read(p)
}

// Close implements io.Closer.
func (c *continued) Close() error {
	if c.rest == nil {
		return nil
	}
	return c.rest.Close()
}

// Write implements io.Writer. It refuses bytes beyond the promised size.
func (w *Writer) Write(p []byte) (int, error) {
	if w.size >= 0 && w.count+int64(len(p)) > w.size {
		w.bad = true
		return 0, fmt.Errorf("%s: more than the %d bytes promised: %w", w.want, w.size, ErrMismatch)
	}
	known := int(min(max(w.here-w.count, 0), int64(len(p)))) // they come from the file
	n, err := w.f.WriteAt(p[known:], w.count+int64(known))
	n += known
	w.hash.Write(p[:n])
	w.count += int64(n)
	if w.part != nil && w.count-w.part.Last().Offset >= markStep {
		w.part.Note(partial.Mark{Offset: w.count})
	}
	w.bad = w.bad || err != nil
	return n, room.Explain(err, w.path, max(w.size-w.count, int64(len(p)-n)))
}

// Commit verifies what was written and makes it visible and durable.
func (w *Writer) Commit() error {
	if err := w.check(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		w.bad = true
		return room.Explain(err, w.path, w.count)
	}
	if err := os.Rename(w.f.Name(), w.path); err != nil {
		return room.Explain(err, w.path, 0)
	}
	w.committed = true
	return statefile.SyncDir(filepath.Dir(w.path))
}

func (w *Writer) check() error {
	v := Verifier{want: w.want, size: w.size, count: w.count, hash: w.hash}
	return v.check()
}

// Close gives the file back, and removes it unless Commit has succeeded or it may
// be gone on with.
func (w *Writer) Close() error {
	if w.part != nil {
		defer w.unlock()
		whole := w.size < 0 || w.count == w.size
		w.part.Abandon(!w.committed && !w.bad && !(whole && w.check() != nil))
		return nil
	}
	if !w.committed {
		_ = os.Remove(w.f.Name()) // Open sweeps what stays
	}
	return w.f.Close()
}

// Forget removes the beginning of a blob, unless it is being gone on with.
func (s *Store) Forget(d digest.Digest) error {
	if err := Validate(d); err != nil {
		return err
	}
	return partial.Remove(s.ingest(), name(d), &s.bringing)
}

// Sweep removes beginnings of blobs that nobody has gone on from for age.
func (s *Store) Sweep(age time.Duration) error {
	return partial.Sweep(s.ingest(), age, &s.bringing)
}

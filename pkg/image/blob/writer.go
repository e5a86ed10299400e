package blob

import (
	"fmt"
	"hash"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/digester"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// Writer receives one blob. It is for one goroutine: Write, then Commit, and
// Close in any case, which removes what was not committed.
type Writer struct {
	f         *os.File
	path      string
	want      digest.Digest
	size      int64
	count     int64
	hash      hash.Hash
	committed bool
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
	return &Writer{f: f, path: p, want: d, size: size, hash: digester.New(d.Algorithm())}, nil
}

// Write implements io.Writer. It refuses bytes beyond the promised size.
func (w *Writer) Write(p []byte) (int, error) {
	if w.size >= 0 && w.count+int64(len(p)) > w.size {
		return 0, fmt.Errorf("%s: more than the %d bytes promised: %w", w.want, w.size, ErrMismatch)
	}
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	w.count += int64(n)
	return n, room.Explain(err, w.path, max(w.size-w.count, int64(len(p)-n)))
}

// Commit verifies what was written and makes it visible and durable.
func (w *Writer) Commit() error {
	v := Verifier{want: w.want, size: w.size, count: w.count, hash: w.hash}
	if err := v.check(); err != nil {
		return err
	}
	if err := w.f.Sync(); err != nil {
		return room.Explain(err, w.path, w.count)
	}
	if err := os.Rename(w.f.Name(), w.path); err != nil {
		return room.Explain(err, w.path, 0)
	}
	w.committed = true
	return statefile.SyncDir(filepath.Dir(w.path))
}

// Close gives the file back, and removes it unless Commit has succeeded.
func (w *Writer) Close() error {
	if !w.committed {
		_ = os.Remove(w.f.Name()) // Open sweeps what stays
	}
	return w.f.Close()
}

package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/entry"
)

// Index says what one layer has and where in its tar stream the content lies.
type Index struct {
	Bytes, Inodes int64 // of file content; files and directories

	root    *Node
	spilled []spilled
	spill   int64 // size of the spill
}

// spilled is a sparse file that cannot be shown from the tar.
type spilled struct {
	from, to int64 // offsets in the tar and in the spill
	extents  []Extent
}

// Scan reads the tar stream of a layer to the end of the archive, which may not be
// r's end. Seek is used with io.SeekCurrent only, and forward.
func Scan(r io.ReadSeeker, limits entry.Limits) (*Index, error) {
	rec := &recorder{r: r}
	s := scanner{recorder: rec, stream: tar.NewReader(rec), tree: newTree(limits.WithDefaults()), index: &Index{}}
	for {
		rec.forget()
		h, err := s.stream.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read tar stream: %w", entry.KindOf(err))
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := s.entry(h); err != nil {
			return nil, fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
	s.tree.dropTargets()
	s.index.root, s.index.Bytes, s.index.Inodes = s.tree.root, s.tree.budget.Bytes, s.tree.budget.Entries
	return s.index, nil
}

type scanner struct {
	recorder *recorder
	stream   *tar.Reader
	tree     *tree
	index    *Index
}

func (s *scanner) entry(h *tar.Header) error {
	if err := s.tree.budget.Count(h); err != nil {
		return err
	}
	var f *Inode
	if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeGNUSparse {
		f = &Inode{Mode: unix.S_IFREG, Size: h.Size, Data: Source{Offset: s.recorder.offset}}
		if err := s.sparse(h, f); err != nil {
			return err
		}
	}
	return s.tree.apply(h, f)
}

// sparse finds the pieces of a sparse file.
func (s *scanner) sparse(h *tar.Header, f *Inode) error {
	extents, ok, err := pieces(h, s.recorder.seen)
	if err != nil || !ok {
		return err
	}
	if _, err := chunkBits(extents, f.Size, f.Data.Offset); err == nil {
		f.Extents = extents
		return nil
	}
	at := align(s.index.spill, 4096)
	s.index.spilled = append(s.index.spilled, spilled{from: f.Data.Offset, to: at, extents: extents})
	s.index.spill = at + f.Size
	f.Data = Source{Device: 1, Offset: at}
	return nil
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// Spilled returns the size of the layer's spill: zero where it needs none.
func (x *Index) Spilled() int64 { return align(x.spill, blockSize) }

// Spill writes, from the layer's tar, the sparse files that cannot be shown from
// there. It leaves their holes alone.
func (x *Index) Spill(w io.WriterAt, tarFile io.ReaderAt) error {
	for _, f := range x.spilled {
		from := f.from
		for _, e := range f.extents {
			_, err := io.Copy(io.NewOffsetWriter(w, f.to+e.Offset), io.NewSectionReader(tarFile, from, e.Size))
			if err != nil {
				return err
			}
			from += e.Size
		}
	}
	return nil
}

// recorder counts what is read and passed over, and keeps the headers of an
// entry: what the tar reader reads after the end of the entry before, which it
// takes in pieces that are no whole block.
type recorder struct {
	r       io.ReadSeeker
	offset  int64
	started bool
	seen    []byte
}

// forget begins with the next entry.
func (r *recorder) forget() { r.seen, r.started = r.seen[:0], false }

// Read implements io.Reader.
func (r *recorder) Read(p []byte) (int, error) {
	r.started = r.started || len(p) == blockSize && r.offset%blockSize == 0
	n, err := r.r.Read(p)
	r.offset += int64(n)
	if r.started {
		r.seen = append(r.seen, p[:n]...)
	}
	return n, err
}

// Seek implements io.Seeker as far as the tar reader needs it.
func (r *recorder) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 {
		return 0, errors.ErrUnsupported
	}
	if offset == 0 {
		return r.offset, nil
	}
	if _, err := r.r.Seek(offset, io.SeekCurrent); err != nil {
		return 0, err
	}
	r.offset += offset
	return r.offset, nil
}

// errSparse says that a sparse file's map and its content disagree.
var errSparse = fmt.Errorf("sparse file: %w", errs.Invalid)

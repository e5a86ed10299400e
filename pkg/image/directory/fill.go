package directory

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"sync"

	"github.com/berth-run/berth/pkg/image/entry"
)

const (
	copyBuffer = 256 << 10
	holeSize   = 4 << 10
)

var (
	buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}
	zeros   [holeSize]byte
)

// fill writes a file's content. Holes of a sparse file stay holes, so that a few
// bytes of archive do not become gigabytes of zeros on disk.
func fill(f *os.File, h *tar.Header, content io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	// Hiding ReadFrom and WriteTo makes io.CopyBuffer use the buffer.
	src := struct{ io.Reader }{content}
	if !entry.Sparse(h) {
		_, err := io.CopyBuffer(struct{ io.Writer }{f}, src, *buf)
		return err
	}
	if _, err := io.CopyBuffer(&holeWriter{f: f}, src, *buf); err != nil {
		return err
	}
	return f.Truncate(h.Size)
}

// holeWriter writes at growing offsets and leaves out blocks of zeros.
type holeWriter struct {
	f   *os.File
	off int64
}

func (w *holeWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(holeSize-int(w.off%holeSize), len(p)-done)
		block := p[done : done+n]
		if !bytes.Equal(block, zeros[:n]) {
			if _, err := w.f.WriteAt(block, w.off); err != nil {
				return done, err
			}
		}
		w.off += int64(n)
		done += n
	}
	return len(p), nil
}

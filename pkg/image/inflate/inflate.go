// Package inflate decompresses what registries and archives send, in bounded
// memory.
package inflate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/berth-run/berth/pkg/errs"
)

// maxZstdWindow bounds the memory that a zstd frame may ask for; `zstd --long`
// uses 128 MiB.
const maxZstdWindow = 128 << 20

var (
	gzipMagic  = []byte{0x1f, 0x8b}
	zstdMagic  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	xzMagic    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	bzip2Magic = []byte("BZh")
)

// skippable reports whether b begins a zstd skippable frame, which may stand
// before the first real one.
func skippable(b []byte) bool {
	return len(b) >= 4 && b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18
}

// Stream returns the plain form of a gzip, zstd or plain stream, told apart
// by its first bytes and not by what a manifest says. The caller closes it,
// which leaves r open. What is wrong with the stream is an error of kind Invalid,
// or Unsupported for another compression; errors of r itself stay as they are.
func Stream(r io.Reader) (io.ReadCloser, error) {
	src := &sourceReader{r: r}
	b := bufio.NewReaderSize(src, 128<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("gzip stream: %w", src.blame(err))
		}
		return &inflater{ReadCloser: z, src: src}, nil
	case bytes.HasPrefix(head, zstdMagic), skippable(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, fmt.Errorf("zstd stream: %w", src.blame(err))
		}
		return &inflater{ReadCloser: z.IOReadCloser(), src: src}, nil
	case bytes.HasPrefix(head, xzMagic), bytes.HasPrefix(head, bzip2Magic):
		return nil, fmt.Errorf("compression is neither gzip nor zstd: %w", errs.Unsupported)
	}
	return io.NopCloser(b), nil
}

// sourceReader remembers whether it was the compressed stream's source that
// failed, or what came from it.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// blame gives a decoder's error its kind, or returns the source's own.
func (s *sourceReader) blame(err error) error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: %w", err, errs.Invalid)
}

type inflater struct {
	io.ReadCloser
	src *sourceReader
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("decompress: %w", i.src.blame(err))
	}
	return n, err
}

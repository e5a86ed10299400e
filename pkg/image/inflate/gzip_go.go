package inflate

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"

	"github.com/berth-run/berth/pkg/errs"
)

// goGzip decodes gzip in Go, where deflate.c is not compiled in. It can be
// marked between members.
type goGzip struct {
	in      *input
	b       *bufio.Reader
	z       *gzip.Reader
	buf     []byte
	between bool
}

func newGoGzip(in *input, from *State) (decoder, error) {
	if from != nil && from.Member != nil {
		return nil, fmt.Errorf("state inside of a gzip member: %w", errs.Unsupported)
	}
	return &goGzip{
		in: in, b: bufio.NewReaderSize(in, 128<<10), z: new(gzip.Reader), buf: make([]byte, piece), between: true,
	}, nil
}

func (g *goGzip) next() ([]byte, error) {
	if g.between {
		if err := g.z.Reset(g.b); err != nil {
			return nil, err // io.EOF: there is no further member
		}
		g.z.Multistream(false)
		g.between = false
	}
	n := 0
	for n < len(g.buf) && !g.between {
		m, err := g.z.Read(g.buf[n:])
		n += m
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		g.between = err != nil
	}
	return g.buf[:n], nil
}

func (g *goGzip) position() (int64, bool) {
	return g.in.offset - int64(g.b.Buffered()), g.between
}

func (g *goGzip) mark() State { return State{Kind: kindGzip} }
func (g *goGzip) close()      {}

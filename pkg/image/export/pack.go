package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/digester"
)

// Compression is how a layer is packed.
type Compression string

// The compressions. Where a name is demanded, "" is none of them.
const (
	None Compression = "none"
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// ParseCompression reads the name of a compression, of which "" means fallback.
// The error is of kind Invalid.
func ParseCompression(s string, fallback Compression) (Compression, error) {
	switch c := Compression(s); c {
	case "":
		return fallback, nil
	case None, Gzip, Zstd:
		return c, nil
	}
	return "", fmt.Errorf("compression %.50q: choose %s, %s or %s: %w", s, Gzip, Zstd, None, errs.Invalid)
}

func (c Compression) mediaType() string {
	if c == Zstd {
		return ispec.MediaTypeImageLayerZstd
	}
	return ispec.MediaTypeImageLayerGzip
}

// writer packs on one core, so that the bytes depend on nothing but what goes in.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c == Zstd {
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, gzip.DefaultCompression)
}

// pack writes a stream, packed, into a file of which nothing stays when it is
// closed.
func (e *Exporter) pack(ctx context.Context, plain *Blob, c Compression, progress func(done, total int64)) (_ *Blob, err error) {
	f, err := os.CreateTemp(e.dir, ".pack-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // which is all that there is of it
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	r, err := plain.Open(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	hash := digester.New(digest.SHA256)
	packed := &counter{w: io.MultiWriter(f, hash)}
	z, err := c.writer(packed)
	if err != nil {
		return nil, err
	}
	in := &counter{w: z}
	if progress != nil {
		in.told = func(n int64) { progress(n, plain.Size) }
	}
	_, err = io.Copy(in, r)
	if err := errors.Join(err, z.Close()); err != nil {
		return nil, fmt.Errorf("pack layer %s: %w", plain.Digest, err)
	}
	return &Blob{
		Descriptor: ispec.Descriptor{MediaType: c.mediaType(), Digest: digest.NewDigest(digest.SHA256, hash), Size: packed.n}, checked: true, file: f,
		open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, offset, packed.n-offset)), nil
		},
	}, nil
}

// counter counts what is written, and tells.
type counter struct {
	w    io.Writer
	n    int64
	told func(int64)
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if c.told != nil {
		c.told(c.n)
	}
	return n, err
}

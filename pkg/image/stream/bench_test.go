package stream

import (
	"bufio"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
)

// BenchmarkLayer reads the gzip file that BERTH_BENCH_LAYER names: hashed alone,
// in one goroutine with a decoder in Go, and as a stream; the last two with and
// without the layer's own digest.
func BenchmarkLayer(b *testing.B) {
	path := os.Getenv("BERTH_BENCH_LAYER")
	if path == "" {
		b.Skip("BERTH_BENCH_LAYER names no file")
	}
	hash := sha256.New()
	size := reading(b, path, func(f *os.File) (int64, error) { return io.Copy(hash, f) })
	d := ispec.Descriptor{Digest: digest.NewDigest(digest.SHA256, hash), Size: size}
	one := func(w io.Writer) func(f *os.File) (int64, error) {
		return func(f *os.File) (int64, error) {
			z, err := gzip.NewReader(bufio.NewReaderSize(blob.NewVerifier(f, d.Digest, d.Size), 128<<10))
			if err != nil {
				return 0, err
			}
			return io.Copy(w, z)
		}
	}
	staged := func(w io.Writer) func(f *os.File) (int64, error) {
		return func(f *os.File) (int64, error) {
			l, err := Open(b.Context(), inflate.NewPool(64<<20), Source{
				Blob: d, Open: func(context.Context, int64) (io.ReadCloser, error) { return f, nil },
			}, layer.Mark{})
			if err != nil {
				return 0, err
			}
			defer l.Close()
			return io.CopyBuffer(w, struct{ io.Reader }{l}, make([]byte, 256<<10))
		}
	}
	for _, c := range []struct {
		name string
		read func(f *os.File) (int64, error)
	}{
		{"sha256", func(f *os.File) (int64, error) { return io.Copy(sha256.New(), f) }},
		{"one goroutine", one(io.Discard)},
		{"stages", staged(io.Discard)},
		{"one goroutine, both digests", one(sha256.New())},
		{"stages, both digests", staged(sha256.New())},
	} {
		b.Run(c.name, func(b *testing.B) {
			before := cpu(b)
			for b.Loop() {
				b.SetBytes(reading(b, path, c.read))
			}
			b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-s/op")
		})
	}
}

func reading(b *testing.B, path string, read func(f *os.File) (int64, error)) int64 {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	n, err := read(f)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// cpu returns the seconds of processor time that this process has taken.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

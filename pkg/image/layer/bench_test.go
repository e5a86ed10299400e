package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/entry"
)

// benchLayer is a layer of 30,000 files and 300 MB, most files small, as a
// distribution with Python has them.
func benchLayer(b *testing.B) []byte {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := make([]byte, 4<<20)
	for n := range content {
		content[n] = byte(r.Uint32())
	}
	for n := range 30_000 {
		size := r.Int64N(4 << 10)
		if n%100 == 0 {
			size = r.Int64N(1600 << 10)
		}
		h := tar.Header{Name: fmt.Sprintf("usr/lib/d%d/e%d/file-%d.py", n/1000, n/50%20, n), Mode: 0o644, Size: size, Typeflag: tar.TypeReg}
		if err := w.WriteHeader(&h); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(content[:size]); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// BenchmarkLayer unpacks a layer, until it is on disk, stacks it, reads all its
// files through the mount with nothing in the page cache, and removes it.
func BenchmarkLayer(b *testing.B) {
	data := benchLayer(b)
	d := digest.FromBytes(data)
	phases := map[string]func(s *Store, at string) error{
		"unpack": func(s *Store, _ string) error {
			_, err := s.Unpack(context.Background(), d, func(Mark) (Stream, error) { return plain{bytes.NewReader(data)}, nil })
			return err
		},
		"stack": func(s *Store, _ string) error {
			_, err := s.Stack(context.Background(), []digest.Digest{d}, func(...digest.Digest) {})
			return err
		},
		"read": func(_ *Store, at string) error { return readAll(at) },
		"remove": func(s *Store, _ string) error {
			rest, err := s.Discard(context.Background(), d)
			if err != nil {
				return err
			}
			return rest()
		},
	}
	for _, backend := range []Backend{Directory, EROFS} {
		for _, phase := range []string{"unpack", "stack", "read", "remove"} {
			b.Run(string(backend)+"/"+phase, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					b.StopTimer()
					s := store(b, backend, entry.Limits{})
					at := ""
					for _, before := range []string{"unpack", "stack"} {
						if before == phase {
							break
						}
						if err := phases[before](s, ""); err != nil {
							b.Fatal(err)
						}
					}
					if phase == "read" {
						at = stacked(b, s, []digest.Digest{d})
						unix.Sync()
						if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
					if err := phases[phase](s, at); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func readAll(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
		return err
	})
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"strings"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/images/debian"
)

// torchLayers is a Debian with Python, PyTorch and scikit-learn, in so many layers of
// about equal size.
func torchLayers(count int64, c images.Compression) func(context.Context, string) ([]images.Layer, error) {
	return func(ctx context.Context, dir string) ([]images.Layer, error) {
		root := debian.Root{
			Suite:    "bookworm",
			Packages: []string{"python3", "python3-torch", "python3-sklearn"},
			Exclude:  []string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"},
		}
		if err := root.Make(ctx, dir); err != nil {
			return nil, err
		}
		return cut(root.Path(dir), count, c)
	}
}

// cut makes layers of a tar file.
func cut(path string, count int64, c images.Compression) ([]images.Layer, error) {
	if count == 1 {
		stream, err := os.ReadFile(path)
		return []images.Layer{{Tar: stream, Compression: c}}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	streams, err := split(f, info.Size()/count+1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var layers []images.Layer
	for _, s := range streams {
		layers = append(layers, images.Layer{Tar: s, Compression: c})
	}
	return layers, nil
}

// split cuts a tar stream into several of about size bytes, each with the
// directories above its first entry, as tools that build images do.
func split(r io.Reader, size int64) ([][]byte, error) {
	var (
		all  [][]byte
		dirs = map[string]*tar.Header{}
		in   = tar.NewReader(r)
		buf  = &bytes.Buffer{}
		out  = tar.NewWriter(buf)
	)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			err = out.Close()
			return append(all, buf.Bytes()), err
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			dirs[name] = h
		}
		if int64(buf.Len()) >= size {
			if err := out.Close(); err != nil {
				return nil, err
			}
			all, buf = append(all, buf.Bytes()), &bytes.Buffer{}
			out = tar.NewWriter(buf)
			if err := writeParents(out, dirs, name); err != nil {
				return nil, err
			}
		}
		if err := out.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.Name, err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return nil, err
		}
	}
}

// writeParents writes the directories above name, the highest first.
func writeParents(w *tar.Writer, dirs map[string]*tar.Header, name string) error {
	for n := range name {
		if !strings.HasPrefix(name[n:], "/") {
			continue
		}
		if h, ok := dirs[name[:n]]; ok {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// smallLayers is one layer of 100,000 files of up to 4 KiB beside a busybox, so
// that a container can be started from it.
func smallLayers(context.Context, string) ([]images.Layer, error) {
	const dirs, each, most = 1000, 100, 4 << 10
	busybox, err := images.Busybox()
	if err != nil {
		return nil, err
	}
	random := rand.NewChaCha8([32]byte{1})
	numbers := rand.New(random)
	l := images.Layer{Files: append(busybox.Layers[0].Files, images.File{Name: "srv/", Mode: 0o755})}
	for d := range dirs {
		dir := fmt.Sprintf("srv/%04d/", d)
		l.Files = append(l.Files, images.File{Name: dir, Mode: 0o755})
		for f := range each {
			data := make([]byte, numbers.IntN(most))
			_, _ = random.Read(data) // cannot fail
			for n := range data {
				data[n] = 'a' + data[n]&15
			}
			l.Files = append(l.Files, images.File{Name: fmt.Sprintf("%s%02d.txt", dir, f), Data: data})
		}
	}
	return []images.Layer{l}, nil
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/images/debian"
)

// recipe says how an image is made, once. It is kept as a directory of blobs.
type recipe struct {
	Name   string // changes when what it makes does
	Layers func(ctx context.Context, dir string) ([]images.Layer, error)
}

var (
	torch = recipe{"torch-1", func(ctx context.Context, dir string) ([]images.Layer, error) {
		return debianLayers(ctx, dir, 8, images.Gzip)
	}}
	torchZstd = recipe{"torch-zstd-1", func(ctx context.Context, dir string) ([]images.Layer, error) {
		return debianLayers(ctx, dir, 8, images.Zstd)
	}}
	single = recipe{"single-1", func(ctx context.Context, dir string) ([]images.Layer, error) {
		return debianLayers(ctx, dir, 1, images.Gzip)
	}}
	smallFiles = recipe{"small-files-1", smallLayers}
)

const rootFile = "root.json"

// make makes the image below dir, where it is not yet.
func (r recipe) make(ctx context.Context, dir string) error {
	home := filepath.Join(dir, r.Name)
	if _, err := os.Stat(filepath.Join(home, rootFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "making image", r.Name)
	layers, err := r.Layers(ctx, dir)
	if err != nil {
		return err
	}
	built, err := images.Image{Layers: layers, Config: ispec.ImageConfig{Cmd: []string{"/bin/true"}}}.Build()
	if err != nil {
		return err
	}
	for d, data := range built.Blobs {
		if err := os.WriteFile(filepath.Join(home, d.Encoded()), data, 0o644); err != nil {
			return err
		}
	}
	root, err := json.Marshal(built.Root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(home, rootFile), root, 0o644) // last: the image is whole
}

// load returns the image, which make has made.
func (r recipe) load(dir string) (*images.Built, error) {
	home := filepath.Join(dir, r.Name)
	data, err := os.ReadFile(filepath.Join(home, rootFile))
	if err != nil {
		return nil, err
	}
	b := &images.Built{Blobs: map[digest.Digest][]byte{}}
	if err := json.Unmarshal(data, &b.Root); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(home)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if n.Name() == rootFile {
			continue
		}
		data, err := os.ReadFile(filepath.Join(home, n.Name()))
		if err != nil {
			return nil, err
		}
		b.Blobs[digest.NewDigestFromEncoded(digest.SHA256, n.Name())] = data
	}
	return b, nil
}

// debianLayers is a Debian with Python, PyTorch and scikit-learn, in so many
// layers of about equal size.
func debianLayers(ctx context.Context, dir string, count int64, c images.Compression) ([]images.Layer, error) {
	root := debian.Root{
		Suite:    "bookworm",
		Packages: []string{"python3", "python3-torch", "python3-sklearn"},
		Exclude:  []string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"},
	}
	if err := root.Make(ctx, dir); err != nil {
		return nil, err
	}
	f, err := os.Open(root.Path(dir))
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
		return nil, fmt.Errorf("%s: %w", root.Path(dir), err)
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

// smallLayers is one layer of 100,000 files of up to 4 KiB.
func smallLayers(context.Context, string) ([]images.Layer, error) {
	const dirs, each, most = 1000, 100, 4 << 10
	random := rand.NewChaCha8([32]byte{1})
	numbers := rand.New(random)
	l := images.Layer{Files: []images.File{{Name: "srv/", Mode: 0o755}}}
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

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/registry"
)

// recipe says how an image is made, once. It is kept as a directory of blobs.
type recipe struct {
	Name   string // changes when what it makes does
	Layers func(ctx context.Context, dir string) ([]images.Layer, error)
}

var (
	torch      = recipe{"torch-2", torchLayers(8, images.Gzip)}
	torchZstd  = recipe{"torch-zstd-2", torchLayers(8, images.Zstd)}
	single     = recipe{"single-1", torchLayers(1, images.Gzip)}
	singleZstd = recipe{"single-zstd-1", torchLayers(1, images.Zstd)}
	smallFiles = recipe{"small-files-2", smallLayers}
)

// madeFile is written last: the image is whole.
const madeFile = "image.json"

// made is what madeFile holds.
type made struct {
	Root     ispec.Descriptor   `json:"root"`
	Config   digest.Digest      `json:"config"`
	Layers   []ispec.Descriptor `json:"layers"`
	Unpacked int64              `json:"unpacked"` // bytes of the tar streams
}

// make makes the image below dir, where it is not yet.
func (r recipe) make(ctx context.Context, dir string) error {
	home := filepath.Join(dir, r.Name)
	if _, err := os.Stat(filepath.Join(home, madeFile)); !errors.Is(err, fs.ErrNotExist) {
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
	m := made{Root: built.Root, Config: built.Config, Layers: built.Layers}
	for _, l := range layers {
		stream, err := l.Stream()
		if err != nil {
			return err
		}
		m.Unpacked += int64(len(stream))
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(home, madeFile), data, 0o644)
}

// load reads what a directory that make has made, or a copy of it, holds.
func load(home string) (m made, err error) {
	data, err := os.ReadFile(filepath.Join(home, madeFile))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	return m, err
}

// add puts the image into a registry, which reads its layers from their files.
func (m made) add(r *registry.Registry, home string) error {
	small := map[digest.Digest][]byte{}
	for _, d := range []digest.Digest{m.Root.Digest, m.Config} {
		data, err := os.ReadFile(filepath.Join(home, d.Encoded()))
		if err != nil {
			return err
		}
		small[d] = data
	}
	r.Add(repository, tag, &images.Built{Root: m.Root, Blobs: small})
	for _, l := range m.Layers {
		r.SetFile(l.Digest, filepath.Join(home, l.Digest.Encoded()))
	}
	return nil
}

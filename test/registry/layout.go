package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/test/images"
)

// AddLayout adds the images of an OCI image layout, whose blobs stay in its files,
// and returns their names, without the host: what the layout calls them, or
// repository with a tag.
func (r *Registry) AddLayout(dir, repository string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, ispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	var index ispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	var names []string
	for _, d := range index.Manifests {
		b := &images.Built{Root: d, Blobs: map[digest.Digest][]byte{}}
		if err := r.addTree(dir, d, b); err != nil {
			return nil, err
		}
		repo, tag := repository, d.Annotations[ispec.AnnotationRefName]
		if before, after, ok := strings.Cut(tag, ":"); ok {
			repo, tag = before, after
		}
		if tag == "" {
			tag = "latest"
		}
		r.Add(repo, tag, b)
		names = append(names, repo+":"+tag)
	}
	return names, nil
}

// addTree adds what a descriptor of a layout leads to.
func (r *Registry) addTree(dir string, d ispec.Descriptor, b *images.Built) error {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	path := filepath.Join(dir, ispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded())
	switch d.MediaType {
	case ispec.MediaTypeImageIndex, ispec.MediaTypeImageManifest, images.DockerList, images.DockerManifest:
	default:
		r.SetFile(d.Digest, path)
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b.Blobs[d.Digest] = data
	var m struct {
		Manifests []ispec.Descriptor `json:"manifests"`
		Config    *ispec.Descriptor  `json:"config"`
		Layers    []ispec.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	below := append(m.Manifests, m.Layers...)
	if m.Config != nil {
		below = append(below, *m.Config)
	}
	for _, child := range below {
		if err := r.addTree(dir, child, b); err != nil {
			return err
		}
	}
	return nil
}

// AddFiles adds an artifact that has a layer for each file, which stays where it
// is.
func (r *Registry) AddFiles(repository, tag string, paths ...string) error {
	config := ispec.DescriptorEmptyJSON
	config.Data = nil
	m := ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		ArtifactType: "application/octet-stream", Config: config,
	}
	for _, path := range paths {
		d, err := describe(path)
		if err != nil {
			return err
		}
		r.SetFile(d.Digest, path)
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	root := ispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.Add(repository, tag, &images.Built{Root: root, Blobs: map[digest.Digest][]byte{
		root.Digest: data, config.Digest: ispec.DescriptorEmptyJSON.Data,
	}})
	return nil
}

// describe reads a file once.
func describe(path string) (ispec.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	defer f.Close()
	hash := digest.SHA256.Digester()
	n, err := io.Copy(hash.Hash(), f)
	return ispec.Descriptor{
		MediaType: "application/octet-stream", Digest: hash.Digest(), Size: n,
		Annotations: map[string]string{ispec.AnnotationTitle: filepath.Base(path)},
	}, err
}

package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AnnotationName is where containerd and Docker put a whole reference; the OCI
// annotation is often no more than a tag.
const AnnotationName = "io.containerd.image.name"

// BlobName is the file of a blob in an OCI layout.
func BlobName(d digest.Digest) string {
	return path.Join(ispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Writer writes an archive. First all files, then the images that they make up,
// then Close; it is for one goroutine.
type Writer struct {
	tar     *tar.Writer
	written map[string]bool
	index   ispec.Index
	entries []DockerEntry
}

// NewWriter returns a Writer to w, which it does not close.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tar: tar.NewWriter(w), written: map[string]bool{}}
}

// Has reports whether a file has been written: each is written once.
func (w *Writer) Has(name string) bool { return w.written[name] }

// File writes a file of size bytes, which open gives, unless it is there.
func (w *Writer) File(ctx context.Context, name string, size int64, open func(context.Context) (io.ReadCloser, error)) error {
	if w.written[name] {
		return nil
	}
	r, err := open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	w.written[name] = true
	return w.copy(name, size, r)
}

// AddOCI lists a manifest under names, or under none.
func (w *Writer) AddOCI(manifest ispec.Descriptor, names []string) {
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		d := manifest
		if tagged(n) {
			d.Annotations = map[string]string{AnnotationName: n, ispec.AnnotationRefName: n}
		}
		w.index.Manifests = append(w.index.Manifests, d)
	}
}

// AddDocker lists an image under those of the names that have a tag.
func (w *Writer) AddDocker(config string, layers, names []string) {
	e := DockerEntry{Config: config, Layers: layers}
	for _, n := range names {
		if tagged(n) {
			e.RepoTags = append(e.RepoTags, n)
		}
	}
	w.entries = append(w.entries, e)
}

// tagged reports whether a full name has a tag, and not a digest.
func tagged(name string) bool { return name != "" && !strings.Contains(name, "@") }

// Close writes what lists the images.
func (w *Writer) Close() error {
	if len(w.entries) > 0 {
		if err := w.json(DockerManifest, w.entries); err != nil {
			return err
		}
		return w.tar.Close()
	}
	w.index.Versioned, w.index.MediaType = specs.Versioned{SchemaVersion: 2}, ispec.MediaTypeImageIndex
	if err := w.json(ispec.ImageLayoutFile, ispec.ImageLayout{Version: ispec.ImageLayoutVersion}); err != nil {
		return err
	}
	if err := w.json(ispec.ImageIndexFile, w.index); err != nil {
		return err
	}
	return w.tar.Close()
}

func (w *Writer) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.copy(name, int64(len(data)), strings.NewReader(string(data)))
}

func (w *Writer) copy(name string, size int64, r io.Reader) error {
	if err := w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.Copy(w.tar, r)
	return err
}

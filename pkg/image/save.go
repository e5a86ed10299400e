package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/inflate"
)

// Format is the form of an archive.
type Format string

// The formats of Save.
const (
	FormatOCI    Format = "oci"    // an OCI image layout
	FormatDocker Format = "docker" // what `docker load` of any age reads
)

// Save writes images as an archive. Each image is named as ref names it; an id
// gives all its tags. It needs the layers as they were pulled: the error is of
// kind Unsupported where they are not kept.
func (s *Service) Save(ctx context.Context, refs []string, format Format, w io.Writer) error {
	sv := saver{service: s, tar: tar.NewWriter(w), written: map[string]bool{}}
	for _, ref := range refs {
		r, names, release, err := s.saved(ref)
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
		switch format {
		case FormatOCI:
			err = sv.addOCI(ctx, r, names)
		case FormatDocker:
			err = sv.addDocker(ctx, r, names)
		default:
			err = fmt.Errorf("format %.50q: %w", format, errs.Invalid)
		}
		release()
		if err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
	}
	if err := sv.finish(format); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// saved returns an image's record, leased, and the names to save it under.
func (s *Service) saved(ref string) (record, []string, func(), error) {
	s.mu.Lock()
	i, err := s.Get(ref)
	r := s.records[i.ID]
	s.mu.Unlock()
	if err != nil {
		return r, nil, nil, err
	}
	l := s.lease(r.content()...)
	names := i.RepoTags
	x := s.index.Load()
	if name := s.downloads.Load().localName(x, ref); x.has(name) {
		names = []string{name}
	}
	return r, names, l.release, nil
}

func (x *index) has(name string) bool { _, ok := x.byRef[name]; return ok }

type saver struct {
	service *Service
	tar     *tar.Writer
	written map[string]bool
	index   ispec.Index
	entries []dockerEntry
}

func (sv *saver) addOCI(ctx context.Context, r record, names []string) error {
	for _, d := range r.content() {
		if err := sv.blob(ctx, blobName(d), d); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		d := ispec.Descriptor{MediaType: r.Manifest.MediaType, Digest: r.Manifest.Digest, Size: r.Manifest.Size}
		if r.Artifact == nil {
			d.Platform = &ispec.Platform{OS: r.config.OS, Architecture: r.config.Architecture, Variant: r.config.Variant}
		}
		if tag := tagOf(n); tag != "" {
			d.Annotations = map[string]string{annotationName: n, ispec.AnnotationRefName: n}
		}
		sv.index.Manifests = append(sv.index.Manifests, d)
	}
	return nil
}

// tagOf is the tag of a full name, "" where it is a digest.
func tagOf(name string) string {
	if strings.Contains(name, "@") {
		return ""
	}
	return name[strings.LastIndexByte(name, ':')+1:]
}

// addDocker writes layers uncompressed: that is what the format has.
func (sv *saver) addDocker(ctx context.Context, r record, names []string) error {
	if r.Artifact != nil {
		return fmt.Errorf("a docker archive holds no artifacts: choose the format %s: %w", FormatOCI, errs.Unsupported)
	}
	e := dockerEntry{Config: r.ID.Encoded() + ".json"}
	for _, n := range names {
		if tagOf(n) != "" {
			e.RepoTags = append(e.RepoTags, n)
		}
	}
	if err := sv.blob(ctx, e.Config, r.ID); err != nil {
		return err
	}
	for _, l := range r.Layers {
		name := l.DiffID.Encoded() + "/layer.tar"
		e.Layers = append(e.Layers, name)
		if err := sv.layer(ctx, name, l); err != nil {
			return err
		}
	}
	sv.entries = append(sv.entries, e)
	return nil
}

// blob writes one blob, once.
func (sv *saver) blob(ctx context.Context, name string, d digest.Digest) error {
	if sv.written[name] {
		return nil
	}
	f, err := sv.open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := sv.service.blobs.Size(d)
	if err != nil {
		return err
	}
	sv.written[name] = true
	return sv.copy(name, size, blob.NewVerifier(blob.ContextReader(ctx, f), d, size))
}

func (sv *saver) open(d digest.Digest) (io.ReadCloser, error) {
	f, err := sv.service.blobs.Open(d)
	if errors.Is(err, errs.NotFound) {
		return nil, fmt.Errorf("layer %s is not kept as it was pulled (keep_blobs is off): %w", d, errs.Unsupported)
	}
	return f, err
}

// layer inflates a layer twice: a tar header comes before the content and has
// its size.
func (sv *saver) layer(ctx context.Context, name string, l layerRecord) error {
	if sv.written[name] {
		return nil
	}
	size := int64(0)
	err := sv.inflate(l, func(r io.Reader) (err error) {
		size, err = io.Copy(io.Discard, blob.ContextReader(ctx, r))
		return err
	})
	if err != nil {
		return err
	}
	sv.written[name] = true
	return sv.inflate(l, func(r io.Reader) error {
		return sv.copy(name, size, blob.NewVerifier(blob.ContextReader(ctx, r), l.DiffID, size))
	})
}

func (sv *saver) inflate(l layerRecord, use func(io.Reader) error) error {
	f, err := sv.open(l.Blob.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := inflate.Stream(f)
	if err != nil {
		return err
	}
	defer plain.Close()
	return use(plain)
}

func (sv *saver) copy(name string, size int64, r io.Reader) error {
	if err := sv.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.Copy(sv.tar, r)
	return err
}

func (sv *saver) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return sv.copy(name, int64(len(data)), strings.NewReader(string(data)))
}

// finish writes what lists the images.
func (sv *saver) finish(format Format) error {
	if format == FormatDocker {
		if err := sv.json(dockerManifestFile, sv.entries); err != nil {
			return err
		}
		return sv.tar.Close()
	}
	sv.index.Versioned, sv.index.MediaType = specs.Versioned{SchemaVersion: 2}, ispec.MediaTypeImageIndex
	if err := sv.json(ispec.ImageLayoutFile, ispec.ImageLayout{Version: ispec.ImageLayoutVersion}); err != nil {
		return err
	}
	if err := sv.json(ispec.ImageIndexFile, sv.index); err != nil {
		return err
	}
	return sv.tar.Close()
}

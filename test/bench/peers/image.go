package main

import (
	"archive/tar"
	"bytes"
	"context"
	_ "crypto/sha256" // go-digest finds it by registration
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The names of the images that are made here.
const (
	busyboxRef = "bench.local/busybox:1"
	pauseRef   = "bench.local/pause:1"
)

// imageFiles are OCI archives.
type imageFiles struct {
	Busybox, Pause string
}

// pauseSource is what a pause container does, and no more.
const pauseSource = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"

// applets are the commands that the suites use.
var applets = []string{"sh", "sleep", "true", "cat", "head", "echo"}

// makeImages builds both images from what is on the machine.
func makeImages(ctx context.Context, dir string) (imageFiles, error) {
	files := imageFiles{Busybox: filepath.Join(dir, "busybox.tar"), Pause: filepath.Join(dir, "pause.tar")}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return files, fmt.Errorf("busybox (Debian's busybox-static): %w", err)
	}
	layer, err := makeLayer("bin/busybox", box, applets)
	if err != nil {
		return files, err
	}
	if err := writeImage(files.Busybox, busyboxRef, layer, []string{"/bin/sh"}); err != nil {
		return files, err
	}
	source, program := filepath.Join(dir, "pause.c"), filepath.Join(dir, "pause")
	if err := os.WriteFile(source, []byte(pauseSource), 0o644); err != nil {
		return files, err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-static", "-s", "-o", program, source).CombinedOutput(); err != nil {
		return files, fmt.Errorf("compile pause: %w: %s", err, out)
	}
	pause, err := os.ReadFile(program)
	if err != nil {
		return files, err
	}
	if layer, err = makeLayer("pause", pause, nil); err != nil {
		return files, err
	}
	return files, writeImage(files.Pause, pauseRef, layer, []string{"/pause"})
}

// makeLayer is a tar with one program, and links in /bin to it.
func makeLayer(path string, program []byte, links []string) ([]byte, error) {
	entries := []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: int64(len(program))},
	}
	for _, l := range links {
		entries = append(entries, &tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + l, Linkname: filepath.Base(path), Mode: 0o777})
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if _, err := w.Write(program); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// layout is an OCI image layout in a tar that is being written.
type layout struct{ *tar.Writer }

// Blob adds content under its digest and describes it.
func (l layout) Blob(mediaType string, content []byte) (ispec.Descriptor, error) {
	d := ispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	return d, l.File("blobs/sha256/"+d.Digest.Encoded(), content)
}

// File adds one file.
func (l layout) File(name string, content []byte) error {
	if err := l.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := l.Write(content)
	return err
}

// writeImage writes an OCI archive with one image of one layer.
func writeImage(path, ref string, layer []byte, entrypoint []string) error {
	var b bytes.Buffer
	l := layout{tar.NewWriter(&b)}
	layerDesc, err := l.Blob(ispec.MediaTypeImageLayer, layer)
	if err != nil {
		return err
	}
	configDesc, err := l.json(ispec.MediaTypeImageConfig, ispec.Image{
		Platform: ispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   ispec.ImageConfig{Entrypoint: entrypoint, Env: []string{"PATH=/bin"}},
		RootFS:   ispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDesc.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := l.json(ispec.MediaTypeImageManifest, ispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageManifest,
		Config: configDesc, Layers: []ispec.Descriptor{layerDesc},
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{ispec.AnnotationRefName: ref, "io.containerd.image.name": ref}
	index, err := json.Marshal(ispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ispec.MediaTypeImageIndex, Manifests: []ispec.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	if err := l.File(ispec.ImageIndexFile, index); err != nil {
		return err
	}
	if err := l.File(ispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ispec.ImageLayoutVersion+`"}`)); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// json adds v as a blob.
func (l layout) json(mediaType string, v any) (ispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	return l.Blob(mediaType, b)
}

package export

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Manifest returns the manifest of an image whose layers go out as they are
// described: the old one, byte for byte, where all go as they came; else an OCI
// one, whatever the old one was.
func Manifest(old ispec.Descriptor, data []byte, layers []ispec.Descriptor) (*Blob, error) {
	var m ispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("manifest %s: %w: %w", old.Digest, err, errs.Invalid)
	}
	if len(m.Layers) != len(layers) {
		return nil, fmt.Errorf("manifest %s: %d layers, not %d: %w", old.Digest, len(m.Layers), len(layers), errs.Invalid)
	}
	same := true
	for n, l := range layers {
		if l.Digest == m.Layers[n].Digest {
			m.Layers[n].MediaType = ociType(m.Layers[n].MediaType)
			continue
		}
		// The old one's annotations may be about its bytes.
		same, m.Layers[n] = false, ispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}
	}
	if same {
		return document(ispec.Descriptor{MediaType: old.MediaType, Digest: old.Digest, Size: int64(len(data))}, data), nil
	}
	m.SchemaVersion, m.MediaType, m.Config.MediaType = 2, ispec.MediaTypeImageManifest, ispec.MediaTypeImageConfig
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return document(ispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data), nil
}

// ociType is the OCI name of a layer's media type.
func ociType(t string) string {
	docker, ok := strings.CutPrefix(t, "application/vnd.docker.image.rootfs.")
	if !ok {
		return t
	}
	compression := docker[strings.LastIndexByte(docker, '.')+1:]
	if compression == "tar" {
		return ispec.MediaTypeImageLayer
	}
	return ispec.MediaTypeImageLayer + "+" + compression
}

func document(d ispec.Descriptor, data []byte) *Blob {
	return &Blob{Descriptor: d, checked: true, open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data[min(offset, int64(len(data))):])), nil
	}}
}

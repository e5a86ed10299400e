package archive

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/digester"
)

// DockerManifest is the file of a docker archive that lists its images.
const DockerManifest = "manifest.json"

// DockerEntry is one image of DockerManifest.
type DockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Describe finds a file's digest and size and, where it is to be of the media type
// of layers, its compression: a docker archive does not tell.
func (sp *Spool) Describe(ctx context.Context, name, mediaType string) (ispec.Descriptor, error) {
	f, err := sp.open(name)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	defer f.Close()
	head := make([]byte, 4)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return ispec.Descriptor{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ispec.Descriptor{}, err
	}
	hash := digester.New(digest.SHA256)
	size, err := io.Copy(hash, blob.ContextReader(ctx, f))
	if err != nil {
		return ispec.Descriptor{}, err
	}
	if mediaType == ispec.MediaTypeImageLayer {
		switch {
		case n >= 2 && head[0] == 0x1f && head[1] == 0x8b:
			mediaType = ispec.MediaTypeImageLayerGzip
		case n == 4 && string(head) == "\x28\xb5\x2f\xfd":
			mediaType = ispec.MediaTypeImageLayerZstd
		}
	}
	return ispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.SHA256, hash), Size: size}, nil
}

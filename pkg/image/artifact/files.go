// Package artifact makes directories of OCI artifacts: manifests whose content is
// not layers of a container image, such as the weights of a model.
//
// Files says what becomes of each blob. The tree of an artifact is the directory
// <dir>/<algorithm>-<digest of the manifest>.<generation>/fs: a blob is a hard
// link to the verified blob in the blob store, so there is one copy on disk, and
// archives are unpacked between them. artifact.json beside fs, written last, says
// that the tree is whole and on disk. A tree never changes: where one is damaged,
// another generation takes its place, and containers keep what they have mounted.
//
// Manifests and archives are attackers' data: names are checked here, archives are
// unpacked by package directory. Methods are safe for concurrent use; the package has
// no goroutines.
package artifact

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Annotations beside those of the OCI image specification.
const (
	annotationUnpack = "io.deis.oras.content.unpack" // ORAS's, of a directory that it has packed
	annotationPath   = "org.cncf.model.filepath"     // ModelPack's
)

const (
	dockerConfig = "application/vnd.docker.container.image.v1+json"
	dockerLayer  = "application/vnd.docker.image.rootfs."
	ociLayer     = "application/vnd.oci.image.layer."
)

// maxFiles bounds the blobs of one artifact.
const maxFiles = 10_000

// Is reports whether the manifest is of an artifact and not of an image that
// containers can be made from. An image may state an artifact type too.
func Is(m ispec.Manifest) bool {
	if t := m.Config.MediaType; t != ispec.MediaTypeImageConfig && t != dockerConfig {
		return true
	}
	if m.ArtifactType == "" {
		return false
	}
	for _, l := range m.Layers {
		if !strings.HasPrefix(l.MediaType, ociLayer) && !strings.HasPrefix(l.MediaType, dockerLayer) {
			return true
		}
	}
	return false
}

// Type is what an artifact says that it is, never "".
func Type(m ispec.Manifest) string {
	return cmp.Or(m.ArtifactType, m.Config.MediaType, "unknown")
}

// File is one blob of an artifact.
type File struct {
	Blob ispec.Descriptor
	// Name is its path in the tree, clean and without "..". It is empty for an
	// archive, which is unpacked at the root.
	Name string
}

// Archive reports whether the blob is unpacked.
func (f File) Archive() bool { return f.Name == "" }

// Files returns what becomes of the blobs of a manifest, whose descriptors are
// checked already.
func Files(m ispec.Manifest) ([]File, error) {
	if len(m.Layers) > maxFiles {
		return nil, fmt.Errorf("artifact of %d blobs, more than %d: %w", len(m.Layers), maxFiles, errs.Invalid)
	}
	var files []File
	taken := map[string]ispec.Descriptor{}
	for _, d := range m.Layers {
		title := cmp.Or(d.Annotations[ispec.AnnotationTitle], d.Annotations[annotationPath])
		switch {
		case d.MediaType == ispec.MediaTypeEmptyJSON && title == "":
			continue // stands for no content
		case archive(d, title):
			files = append(files, File{Blob: d})
			continue
		}
		name, err := fileName(d, title)
		if err != nil {
			return nil, err
		}
		if other, ok := taken[name]; ok {
			if other.Digest == d.Digest {
				continue
			}
			return nil, fmt.Errorf("artifact has two blobs with the title %.200q: %w", name, errs.Invalid)
		}
		taken[name] = d
		files = append(files, File{Blob: d, Name: name})
	}
	return files, apart(taken)
}

// archive reports whether a blob is a tar archive that is meant to be unpacked.
func archive(d ispec.Descriptor, title string) bool {
	switch d.Annotations[annotationUnpack] {
	case "true":
		return true
	case "false":
		return false
	}
	mediaType, _, _ := strings.Cut(d.MediaType, ";")
	kind, compression, _ := strings.Cut(mediaType, "+")
	switch compression {
	case "", "gzip", "zstd":
	default:
		return false
	}
	if mediaType == ispec.MediaTypeImageLayer && title != "" {
		return false // ORAS gives this type to each file that has none
	}
	for _, suffix := range []string{".tar", ".tar.gzip", ".tar.zstd", "/tar", "/x-tar"} {
		if strings.HasSuffix(kind, suffix) {
			return true
		}
	}
	return false
}

// fileName checks a title; a blob without one is called by its digest.
func fileName(d ispec.Descriptor, title string) (string, error) {
	if title == "" {
		return d.Digest.Algorithm().String() + "-" + d.Digest.Encoded(), nil
	}
	name := path.Clean(title)
	ok := filepath.IsLocal(title) && name != "." && !strings.HasSuffix(title, "/") && len(name) < 4096
	for part := range strings.SplitSeq(title, "/") {
		ok = ok && part != ".." && len(part) < 256
	}
	ok = ok && !strings.ContainsFunc(title, func(r rune) bool { return r < ' ' || r == 0x7f })
	if !ok {
		return "", fmt.Errorf("title %.200q of blob %s is no path of a file within a directory: %w", title, d.Digest, errs.Invalid)
	}
	return name, nil
}

// apart makes sure that no file lies below another file.
func apart(names map[string]ispec.Descriptor) error {
	for name := range names {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := names[dir]; ok {
				return fmt.Errorf("artifact has %.200q both as a file and as a directory: %w", dir, errs.Invalid)
			}
		}
	}
	return nil
}

package catalog

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// Image is what is known of one image. It is shared and must not be changed.
type Image struct {
	ID          digest.Digest   // of the config
	Digest      digest.Digest   // of the manifest
	RepoTags    []string        // docker.io/library/x:latest
	RepoDigests []string        // docker.io/library/x@sha256:…
	Size        int64           // of the unpacked layers and the config, never zero
	Pinned      bool            // must not be garbage collected
	Config      ispec.Image     // attackers' data
	CreatedAt   time.Time       // when it came here
	Layers      []digest.Digest // diffIDs, the lowest first
	Annotations map[string]string
	// ArtifactType is set where this is an artifact: its id is the manifest's
	// digest, it has no config and no containers, and serves as a volume.
	ArtifactType string
	// Handlers are the runtime handlers that it was pulled for, or containers use it
	// with; "" is the default one. There is one at least.
	Handlers []string
}

// Runnable returns nil for an image, and for an artifact why no container can be
// made of it, as an error of kind Invalid.
func (i Image) Runnable() error {
	if i.ArtifactType == "" {
		return nil
	}
	return fmt.Errorf("%s is an artifact of type %.100q and not an image that runs: mount it as an image volume of a container: %w", i.ID, i.ArtifactType, errs.Invalid)
}

// Index is all images at one moment. It is never changed.
type Index struct {
	images []Image // by id
	byRef  map[string]int
	byID   map[digest.Digest]int
}

// publish makes what is whole what readers see.
func (tx *Tx) publish() {
	if !tx.changed {
		return
	}
	x := &Index{byRef: map[string]int{}, byID: map[digest.Digest]int{}}
	for _, r := range tx.images {
		if r.Fault == nil {
			x.images = append(x.images, tx.Image(r))
		}
	}
	slices.SortFunc(x.images, func(a, b Image) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for n, i := range x.images {
		x.byID[i.ID] = n
		for _, names := range [][]string{i.RepoTags, i.RepoDigests} {
			for _, name := range names {
				x.byRef[name] = n
			}
		}
	}
	tx.catalog.index.Store(x)
}

// Image returns what readers see of a record.
func (tx *Tx) Image(r Record) Image {
	i := Image{
		ID: r.ID, Digest: r.Manifest.Digest, Size: r.Size, Config: r.Config, CreatedAt: r.Created,
		Layers: r.DiffIDs(), Annotations: r.Notes, Handlers: union(r.Handlers, nil),
	}
	if r.Artifact != nil {
		i.ArtifactType = r.Artifact.Type
	}
	for name, id := range tx.names {
		switch {
		case id != r.ID:
		case strings.Contains(name, "@"):
			i.RepoDigests = append(i.RepoDigests, name)
		default:
			i.RepoTags = append(i.RepoTags, name)
		}
	}
	slices.Sort(i.RepoTags)
	slices.Sort(i.RepoDigests)
	i.Pinned = tx.pinned.Match(slices.Concat([]string{r.ID.String()}, i.RepoTags, i.RepoDigests)...)
	return i
}

// Images returns all images, by id. The slice is shared and must not be changed.
func (x *Index) Images() []Image { return x.images }

// Has reports whether there is an image of that name.
func (x *Index) Has(name string) bool { _, ok := x.byRef[name]; return ok }

var hexRE = regexp.MustCompile(`^[a-f0-9]+$`)

// minPrefix is the shortest beginning of an id that Get takes.
const minPrefix = 4

// Get returns the image of an id with or without its algorithm, of an id's unique
// beginning of at least four digits, or of what name says that ref means as a name.
// The error is of kind NotFound, or Invalid where ref cannot name an image.
func (x *Index) Get(ref string, name func() string) (Image, error) {
	if n, ok := x.byID[digest.Digest(ref)]; ok {
		return x.images[n], nil
	}
	id, isID := strings.CutPrefix(ref, "sha256:")
	if n, ok := x.byID[digest.NewDigestFromEncoded(digest.SHA256, id)]; ok {
		return x.images[n], nil
	}
	full := name()
	if n, ok := x.byRef[full]; ok && !isID {
		return x.images[n], nil
	}
	if len(id) >= minPrefix && hexRE.MatchString(id) {
		return x.prefix(ref, "sha256:"+id)
	}
	if _, err := reference.Normalize(ref); err != nil {
		return Image{}, err
	}
	return Image{}, fmt.Errorf("image %s: %w", full, errs.NotFound)
}

func (x *Index) prefix(ref, prefix string) (Image, error) {
	found := -1
	for n, i := range x.images {
		if !strings.HasPrefix(string(i.ID), prefix) {
			continue
		}
		if found >= 0 {
			return Image{}, fmt.Errorf("image id %s is not unique: %w", ref, errs.Invalid)
		}
		found = n
	}
	if found < 0 {
		return Image{}, fmt.Errorf("image %s: %w", ref, errs.NotFound)
	}
	return x.images[found], nil
}

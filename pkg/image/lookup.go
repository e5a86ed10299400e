package image

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

var hexRE = regexp.MustCompile(`^[a-f0-9]+$`)

// minPrefix is the shortest beginning of an id that Get takes.
const minPrefix = 4

// index is all images at one moment. It is never changed.
type index struct {
	images []Image // by id
	byRef  map[string]int
	byID   map[digest.Digest]int
}

// publishLocked makes the maps' present content what readers see.
func (s *Service) publishLocked() {
	x := &index{byRef: map[string]int{}, byID: map[digest.Digest]int{}}
	for _, r := range s.records {
		if r.fault != nil {
			continue
		}
		x.images = append(x.images, s.imageLocked(r))
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
	s.index.Store(x)
}

func (s *Service) imageLocked(r record) Image {
	i := Image{
		ID: r.ID, Digest: r.Manifest.Digest, Size: r.Size, Config: r.config, CreatedAt: r.Created, Annotations: r.Notes, Handler: r.Handler,
	}
	if r.Artifact != nil {
		i.ArtifactType = r.Artifact.Type
	} else {
		for _, l := range r.Layers {
			i.Layers = append(i.Layers, l.DiffID)
		}
	}
	for name, id := range s.refs {
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
	i.Pinned = s.pinned.Match(slices.Concat([]string{r.ID.String()}, i.RepoTags, i.RepoDigests)...)
	return i
}

// List returns all images, by id. It takes no lock; the slice is shared and must
// not be changed.
func (s *Service) List() []Image { return s.index.Load().images }

// Get returns the image of a tag, a digest reference, an id with or without its
// algorithm, or an id's unique beginning of at least four digits. The error is of
// kind NotFound, or Invalid where ref cannot name an image. It takes no lock.
func (s *Service) Get(ref string) (Image, error) {
	x := s.index.Load()
	n, err := x.find(ref, s.downloads.Load())
	if err != nil {
		return Image{}, err
	}
	return x.images[n], nil
}

// find looks for an id, or for what ref means as a name.
func (x *index) find(ref string, d *downloads) (int, error) {
	if n, ok := x.byID[digest.Digest(ref)]; ok {
		return n, nil
	}
	id, isID := strings.CutPrefix(ref, "sha256:")
	if n, ok := x.byID[digest.NewDigestFromEncoded(digest.SHA256, id)]; ok {
		return n, nil
	}
	name := d.localName(x, ref)
	if n, ok := x.byRef[name]; ok && !isID {
		return n, nil
	}
	if len(id) >= minPrefix && hexRE.MatchString(id) {
		return x.prefix(ref, "sha256:"+id)
	}
	if _, err := reference.Normalize(ref); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("image %s: %w", name, errs.NotFound)
}

func (x *index) prefix(ref, prefix string) (int, error) {
	found := -1
	for n, i := range x.images {
		if !strings.HasPrefix(string(i.ID), prefix) {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("image id %s is not unique: %w", ref, errs.Invalid)
		}
		found = n
	}
	if found < 0 {
		return 0, fmt.Errorf("image %s: %w", ref, errs.NotFound)
	}
	return found, nil
}

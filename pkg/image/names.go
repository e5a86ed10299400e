package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/upkeep"
)

// NormalizeRef returns the full form of a reference as users write it: busybox
// becomes docker.io/library/busybox:latest. The error is of kind Invalid.
func NormalizeRef(s string) (string, error) { return reference.Normalize(s) }

// SetPinned says which images kubelet must not collect as garbage, by
// reference.Patterns. Who asks for the removal of one gets it all the same.
func (s *Service) SetPinned(patterns []string) {
	s.catalog.SetPinned(patterns)
}

// Tag gives the image that source names another name.
func (s *Service) Tag(_ context.Context, source, target string) error {
	name, err := reference.Normalize(target)
	if err != nil {
		return err
	}
	if strings.Contains(name, "@") {
		return fmt.Errorf("tag %s: a digest cannot be given as a name: %w", name, errs.Invalid)
	}
	return s.catalog.Do(func(tx *catalog.Tx) error {
		i, err := s.Get(source)
		if err != nil {
			return err
		}
		return tx.SetName(name, i.ID)
	})
}

// Untag takes one name away from its image, as people remove images: the image
// itself goes with its last tag, and at once where ref is an id.
func (s *Service) Untag(ctx context.Context, ref string) error {
	last := false
	err := s.catalog.Do(func(tx *catalog.Tx) error {
		x := s.catalog.Index()
		i, err := s.find(x, ref)
		if err != nil {
			return err
		}
		name := s.downloads.Load().localName(x, ref)
		if tx.Names()[name] != i.ID || lastName(i, name) {
			last = true
			return nil
		}
		if err := tx.DropName(name); err != nil {
			return err
		}
		return dropDigests(tx, i, name)
	})
	if last {
		return s.Remove(ctx, ref)
	}
	return err
}

// lastName reports whether an image without name would have no name that a
// person has given it.
func lastName(i Image, name string) bool {
	if strings.Contains(name, "@") {
		return len(i.RepoTags) == 0 && len(i.RepoDigests) == 1
	}
	return len(i.RepoTags) == 1
}

// dropDigests takes the digests of a repository away together with its
// last tag.
func dropDigests(tx *catalog.Tx, i Image, name string) error {
	r, err := reference.Parse(name)
	if err != nil || r.Digest != "" {
		return err
	}
	for _, tag := range i.RepoTags {
		if tag != name && strings.HasPrefix(tag, r.Repository()+":") {
			return nil
		}
	}
	for _, d := range i.RepoDigests {
		if strings.HasPrefix(d, r.Repository()+"@") {
			if err := tx.DropName(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove forgets the image that ref names, with all its names, and takes away what
// nothing else uses; the files go in the background, which Close waits for. Layers of mounted root file systems stay until these are
// unmounted and something is removed again.
func (s *Service) Remove(ctx context.Context, ref string) error {
	if err := s.forget(ref); err != nil {
		return err
	}
	rest, err := s.keeper.Collect(ctx, 0)
	s.rests.Go(func() { _ = upkeep.Finish(rest, nil) }) // the next start removes what stays
	return err
}

// Release is Remove where the image is here for no other runtime handler than this one.
// It is kept for the others.
func (s *Service) Release(ctx context.Context, ref, handler string) error {
	if i, err := s.Get(ref); err == nil {
		if needed, err := s.catalog.Disclaim(i.ID, handler); needed || err != nil {
			return err
		}
	}
	return s.Remove(ctx, ref)
}

func (s *Service) forget(ref string) error {
	return s.catalog.Do(func(tx *catalog.Tx) error {
		i, err := s.Get(ref)
		if err == nil {
			return tx.Forget(i.ID)
		}
		// One that is damaged is not shown, and can be removed all the same.
		id := digest.Digest(ref)
		if name, invalid := reference.Normalize(ref); invalid == nil && tx.Names()[name] != "" {
			id = tx.Names()[name]
		}
		if r, ok := tx.Record(id); ok && r.Fault != nil {
			return tx.Forget(id)
		}
		return err
	})
}

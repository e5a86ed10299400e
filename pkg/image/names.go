package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// NormalizeRef returns the full form of a reference as users write it: busybox
// becomes docker.io/library/busybox:latest. The error is of kind Invalid.
func NormalizeRef(s string) (string, error) { return reference.Normalize(s) }

// SetPinned says which images kubelet must not collect as garbage, by
// reference.Patterns. Who asks for the removal of one gets it all the same.
func (s *Service) SetPinned(patterns []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pinned = reference.ParsePatterns(patterns)
	s.publishLocked()
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
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.Get(source)
	if err != nil {
		return err
	}
	defer s.publishLocked()
	return s.setRefLocked(name, i.ID)
}

// Untag takes one name away from its image, as people remove images: the image
// itself goes with its last tag, and at once where ref is an id.
func (s *Service) Untag(ctx context.Context, ref string) error {
	s.mu.Lock()
	i, err := s.Get(ref)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	name := s.downloads.Load().localName(s.index.Load(), ref)
	if id, ok := s.refs[name]; !ok || id != i.ID || lastName(i, name) {
		s.mu.Unlock()
		return s.Remove(ctx, ref)
	}
	defer s.mu.Unlock()
	defer s.publishLocked()
	if err := s.dropRefLocked(name); err != nil {
		return err
	}
	return s.dropDigestsLocked(i, name)
}

// lastName reports whether an image without name would have no name that a
// person has given it.
func lastName(i Image, name string) bool {
	if strings.Contains(name, "@") {
		return len(i.RepoTags) == 0 && len(i.RepoDigests) == 1
	}
	return len(i.RepoTags) == 1
}

// dropDigestsLocked takes the digests of a repository away together with its
// last tag.
func (s *Service) dropDigestsLocked(i Image, name string) error {
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
			if err := s.dropRefLocked(d); err != nil {
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
	rest, err := s.collect(ctx, 0)
	s.rests.Go(func() { _ = finish(rest, nil) }) // the next start removes what stays
	return err
}

func (s *Service) forget(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.Get(ref)
	if err == nil {
		return s.forgetLocked(i.ID)
	}
	// One that is damaged is not shown, and can be removed all the same.
	id := digest.Digest(ref)
	if name, invalid := reference.Normalize(ref); invalid == nil && s.refs[name] != "" {
		id = s.refs[name]
	}
	if r, ok := s.records[id]; ok && r.fault != nil {
		return s.forgetLocked(id)
	}
	return err
}

func (s *Service) forgetLocked(id digest.Digest) error {
	defer s.publishLocked()
	for name, image := range s.refs {
		if image != id {
			continue
		}
		if err := s.dropRefLocked(name); err != nil {
			return err
		}
	}
	if err := os.Remove(s.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(s.records, id)
	return nil
}

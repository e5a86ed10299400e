package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
)

// Step is one of the steps that an image was built in. Its texts are attackers'
// data.
type Step struct {
	Created            time.Time // zero where the image does not say
	CreatedBy, Comment string
	Size               int64 // of the files of its layer; 0 without one
}

// History returns the steps that the image of ref was built in, the newest first.
// Layers that its history does not tell of are steps, too.
func (s *Service) History(ref string) (Image, []Step, error) {
	i, err := s.Get(ref)
	if err != nil {
		return i, nil, err
	}
	if err := i.Runnable(); err != nil {
		return i, nil, err
	}
	var steps []Step
	layers := i.Layers
	next := func() (size int64) {
		if len(layers) > 0 {
			if info, err := s.layers.Info(layers[0]); err == nil { // else its size is not known
				size = info.Bytes
			}
			layers = layers[1:]
		}
		return size
	}
	for _, h := range i.Config.History {
		step := Step{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = *h.Created
		}
		if !h.EmptyLayer {
			step.Size = next()
		}
		steps = append(steps, step)
	}
	for len(layers) > 0 {
		steps = append(steps, Step{Size: next(), Comment: "<missing>"})
	}
	for a, b := 0, len(steps)-1; a < b; a, b = a+1, b-1 {
		steps[a], steps[b] = steps[b], steps[a]
	}
	return i, steps, nil
}

// Usage is what an image takes on disk.
type Usage struct {
	Image          Image
	Shared, Unique int64 // bytes that other images need, too, and that none does
}

// Usages returns what each image takes, by id, what all take together, and how much of
// that those need whose ids are used.
func (s *Service) Usages(ctx context.Context, used map[string]bool) (all []Usage, total, needed int64, _ error) {
	info, err := s.FsInfo(ctx)
	if err != nil {
		return nil, 0, 0, err
	}
	records := s.catalog.Records()
	users := map[digest.Digest]int{}
	parts := map[digest.Digest][]digest.Digest{}
	for _, r := range records {
		of := map[digest.Digest]bool{}
		for _, d := range r.Content() {
			of[d] = true
		}
		s.layers.Mark(of, slices.Concat(r.Stack, r.Trees))
		for d := range of {
			users[d]++
			parts[r.ID] = append(parts[r.ID], d)
		}
	}
	counted := map[digest.Digest]bool{}
	for _, i := range s.List() {
		u := Usage{Image: i}
		for _, d := range parts[i.ID] {
			size, _ := s.layers.Usage(d)
			if blob, err := s.blobs.Size(d); err == nil {
				size += blob
			}
			if used[i.ID.String()] && !counted[d] {
				counted[d] = true
				needed += size
			}
			if users[d] > 1 {
				u.Shared += size
			} else {
				u.Unique += size
			}
		}
		all = append(all, u)
	}
	return all, int64(info.UsedBytes), needed, nil
}

// PruneOptions say what Prune spares.
type PruneOptions struct {
	All   bool                   // removes images with tags, too
	Until time.Time              // if not zero, spares what was made after it
	Used  func() map[string]bool // the ids of images that containers use
}

// Prune removes images that nothing uses: those without a tag, or all. Pinned ones
// stay. It returns what went, and how much of the disk that has freed.
func (s *Service) Prune(ctx context.Context, o PruneOptions) ([]Image, int64, error) {
	before, err := s.FsInfo(ctx)
	if err != nil {
		return nil, 0, err
	}
	var gone []Image
	var failed []error
	for _, i := range s.List() {
		made := i.CreatedAt // of what does not say when it was built
		if i.Config.Created != nil {
			made = *i.Config.Created
		}
		if i.Pinned || len(i.RepoTags) > 0 && !o.All || !o.Until.IsZero() && !made.Before(o.Until) || o.Used()[i.ID.String()] {
			continue
		}
		if err := s.Remove(ctx, i.ID.String()); err != nil {
			if !errors.Is(err, errs.NotFound) {
				failed = append(failed, fmt.Errorf("remove image %s: %w", i.ID, err))
			}
			continue
		}
		gone = append(gone, i)
	}
	after, err := s.FsInfo(ctx)
	return gone, max(0, int64(before.UsedBytes)-int64(after.UsedBytes)), errors.Join(append(failed, err)...)
}

package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
)

// Problem is something that Check has found.
type Problem struct {
	Object   string // an image, a layer, a blob or a root file system
	What     string // is wrong with it
	Repaired bool
}

// Check compares what is on disk with what the records say, and with repair
// mends what can be mended: garbage is removed, and so is damaged content, which
// the next pull brings again. containers, where it is not nil, returns
// the ids whose root file systems are meant to be; others are left-overs.
func (s *Service) Check(ctx context.Context, repair bool, containers func() []string) ([]Problem, error) {
	s.mu.Lock()
	problems := slices.Clone(s.faults)
	if repair {
		s.faults = nil
		for n := range problems {
			problems[n].Repaired = true // set aside by Open already
		}
	}
	s.mu.Unlock()
	for _, check := range []func(context.Context, bool) ([]Problem, error){
		s.checkBlobs,
		s.checkImages,
		func(ctx context.Context, repair bool) ([]Problem, error) {
			return s.checkRoots(ctx, repair, containers)
		},
		s.checkGarbage,
	} {
		more, err := check(ctx, repair)
		problems = append(problems, more...)
		if err != nil {
			return problems, fmt.Errorf("check images: %w", err)
		}
	}
	return problems, nil
}

// checkImages looks for content that records name and that is not there.
func (s *Service) checkImages(context.Context, bool) ([]Problem, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var problems []Problem
	for _, r := range s.records {
		missing := func(what string, d digest.Digest) {
			problems = append(problems, Problem{Object: "image " + r.ID.String(), What: fmt.Sprintf("%s %s is missing: pull it again", what, d)})
		}
		for _, d := range []digest.Digest{r.ID, r.Manifest.Digest} {
			if !s.blobs.Has(d) {
				missing("blob", d)
			}
		}
		for _, d := range r.Stack {
			if !s.layers.Has(d) {
				missing("layer", d)
			}
		}
	}
	return problems, nil
}

func (s *Service) checkRoots(ctx context.Context, repair bool, containers func() []string) ([]Problem, error) {
	if containers == nil {
		return nil, nil
	}
	roots, damaged, err := s.roots.List()
	if err != nil {
		return nil, err
	}
	ids := damaged
	for _, r := range roots {
		ids = append(ids, r.ID)
	}
	mounted, err := s.roots.Mounted()
	if err != nil {
		return nil, err
	}
	ids = append(ids, mounted...)
	slices.Sort(ids)
	// Asked last: a container made meanwhile is known by now.
	known := containers()
	var problems []Problem
	for _, id := range slices.Compact(ids) {
		if slices.Contains(known, id) {
			continue
		}
		p := Problem{Object: "root file system " + id, What: "belongs to no container"}
		if repair {
			if err := s.roots.Unmount(ctx, id); err != nil {
				p.What += ": " + err.Error()
			} else {
				p.Repaired = true
			}
		}
		problems = append(problems, p)
	}
	return problems, nil
}

func (s *Service) checkGarbage(ctx context.Context, repair bool) ([]Problem, error) {
	layers, blobs, err := s.unused(0)
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for what, digests := range map[string][]digest.Digest{"layer ": layers, "blob ": blobs} {
		for _, d := range digests {
			problems = append(problems, Problem{Object: what + d.String(), What: "is used by nothing", Repaired: repair})
		}
	}
	if repair {
		err = s.collect(ctx, 0)
	}
	return problems, err
}

// checkBlobs reads blobs again; those that are larger than a config only with
// repair, because it takes a while.
func (s *Service) checkBlobs(ctx context.Context, repair bool) ([]Problem, error) {
	all, err := s.blobs.List()
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, b := range all {
		if b.Size > maxConfig && !repair {
			continue
		}
		err := s.blobs.Verify(ctx, b.Digest)
		switch {
		case ctx.Err() != nil:
			return problems, ctx.Err()
		case err == nil, errors.Is(err, errs.NotFound): // removed meanwhile
			continue
		}
		p := Problem{Object: "blob " + b.Digest.String(), What: err.Error()}
		if repair {
			p.Repaired = s.blobs.Remove(b.Digest) == nil // else the next check finds it again
		}
		problems = append(problems, p)
	}
	return problems, nil
}

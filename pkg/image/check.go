package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/blob"
)

// Problem is something that Check has found.
type Problem struct {
	Object   string // an image, a layer, a blob or a root file system
	What     string // is wrong with it
	Repaired bool
}

// Check compares what is on disk with what the records say, and with repair
// mends what can be mended: garbage is removed, what is damaged is set aside so
// that the next pull brings it again. containers, where it is not nil, returns
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
	layers, blobs, err := s.unused()
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
		err = s.collect(ctx)
	}
	return problems, err
}

// Verify reads every blob again, and returns and sets aside those that are not
// what their name says.
func (s *Service) Verify(ctx context.Context) ([]Problem, error) {
	all, err := s.blobs.List()
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, b := range all {
		f, err := s.blobs.Open(b.Digest)
		if err != nil {
			continue // removed meanwhile
		}
		_, err = io.Copy(io.Discard, blob.NewVerifier(blob.ContextReader(ctx, f), b.Digest, -1))
		_ = f.Close() // read only
		if ctx.Err() != nil {
			return problems, ctx.Err()
		}
		if err != nil {
			aside := s.blobs.Quarantine(b.Digest)
			problems = append(problems, Problem{Object: "blob " + b.Digest.String(), What: errors.Join(err, aside).Error(), Repaired: aside == nil})
		}
	}
	return problems, nil
}

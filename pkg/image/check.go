package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/blob"
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
		s.checkTrees,
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
		if r.Artifact == nil {
			continue
		}
		files, err := r.files(s.blobs)
		if err == nil {
			err = s.artifacts.Linked(r.Artifact.Tree, files)
		}
		if err != nil {
			problems = append(problems, Problem{Object: "artifact " + r.ID.String(), What: err.Error() + ": pull it again"})
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
	volumes, unknown, err := s.volumes.List()
	if err != nil {
		return nil, err
	}
	ids = append(append(ids, mounted...), unknown...)
	for _, v := range volumes {
		ids = append(ids, v.ID)
	}
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
			if err := s.Unmount(ctx, id); err != nil {
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
	g, err := s.unused(0)
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, name := range g.trees {
		problems = append(problems, Problem{Object: "artifact tree " + name, What: "is used by nothing", Repaired: repair})
	}
	for what, digests := range map[string][]digest.Digest{"layer ": g.layers, "blob ": g.blobs} {
		for _, d := range digests {
			problems = append(problems, Problem{Object: what + d.String(), What: "is used by nothing", Repaired: repair})
		}
	}
	if repair {
		err = finish(s.collect(ctx, 0))
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

// checkTrees reads what archives of artifacts have left, with repair, as it does
// with blobs. A damaged tree stays for who has mounted it.
func (s *Service) checkTrees(ctx context.Context, repair bool) ([]Problem, error) {
	if !repair {
		return nil, nil
	}
	s.mu.Lock()
	records := slices.Collect(maps.Values(s.records))
	s.mu.Unlock()
	var problems []Problem
	for _, r := range records {
		if r.Artifact == nil {
			continue
		}
		files, err := r.files(s.blobs)
		if err == nil {
			err = s.artifacts.Verify(ctx, r.Artifact.Tree, files)
		}
		if ctx.Err() != nil {
			return problems, ctx.Err()
		}
		if err == nil || errors.Is(err, errs.NotFound) { // which checkImages tells
			continue
		}
		problems = append(problems, Problem{
			Object: "artifact " + r.ID.String(), What: err.Error(), Repaired: s.artifacts.Damage(r.Artifact.Tree) == nil,
		})
	}
	return problems, nil
}

// files reads an artifact's manifest again.
func (r record) files(s *blob.Store) ([]artifact.File, error) {
	data, err := s.ReadAll(r.Manifest.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := checkManifest(data, "manifest "+r.ID.String())
	if err != nil {
		return nil, err
	}
	return artifact.Files(*m)
}

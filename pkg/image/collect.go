package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/catalog"
)

const (
	collectEvery = time.Hour
	leftFor      = 24 * time.Hour
)

// Run verifies what the machine may have lost when it stopped, and removes, at
// once and then each hour, what pulls that were cancelled or failed have left and
// nobody has gone on from for a day. It returns nil once ctx has ended.
func (s *Service) Run(ctx context.Context) error {
	s.suspects.Run(ctx)
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		if err := s.collectOld(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Could not remove what pulls have left")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// collectOld does nothing where Open has set a record aside: what that names may
// be brought back, until somebody has Check repair it.
func (s *Service) collectOld(ctx context.Context) error {
	doubt := false
	failed := s.catalog.Do(func(tx *catalog.Tx) (failed error) {
		doubt = len(tx.Faults()) > 0
		for id, r := range tx.All() {
			if !doubt && r.Fault != nil && time.Since(r.Since) > leftFor { // nobody has pulled it again
				failed = errors.Join(failed, tx.Forget(id))
			}
		}
		return failed
	})
	if doubt || failed != nil {
		return failed
	}
	return finish(s.collect(ctx, leftFor))
}

// garbage is what nothing uses.
type garbage struct {
	layers, blobs []digest.Digest
	trees         []string // of artifacts
}

// held is what containers use beside images: Mount and MountVolumes hold leases
// until that is recorded.
type held struct {
	digests map[digest.Digest]bool
	trees   map[string]bool
	doubt   bool // somebody uses nobody knows what
}

// held adds what containers use to what images need.
func (s *Service) held(tx *catalog.Tx) (held, error) {
	h := held{digests: tx.Used(), trees: map[string]bool{}}
	roots, damaged, err := s.roots.List()
	if err != nil {
		return h, err
	}
	volumes, unknown, err := s.volumes.List()
	if err != nil {
		return h, err
	}
	h.doubt = len(damaged)+len(unknown) > 0
	for _, r := range roots {
		s.layers.Mark(h.digests, r.Layers)
	}
	for _, c := range volumes {
		for _, d := range c.Blobs {
			h.digests[d] = true
		}
		for _, v := range c.Volumes {
			h.trees[v.Tree] = true
			s.layers.Mark(h.digests, v.Layers)
		}
	}
	for _, r := range tx.All() {
		if r.Artifact != nil {
			h.trees[r.Artifact.Tree] = true
		}
	}
	return h, nil
}

// unused returns what can go and has been here for age. Records are looked at
// while nobody takes a lease.
func (s *Service) unused(age time.Duration) (g garbage, err error) {
	err = s.catalog.Do(func(tx *catalog.Tx) error {
		g, err = s.unusedIn(tx, time.Now().Add(-age))
		return err
	})
	return g, err
}

func (s *Service) unusedIn(tx *catalog.Tx, before time.Time) (g garbage, err error) {
	h, err := s.held(tx)
	if err != nil {
		return g, err
	}
	if !h.doubt {
		if g.trees, err = s.unusedTrees(tx, h, before); err != nil {
			return g, err
		}
		all, err := s.layers.List()
		if err != nil {
			return g, err
		}
		for _, d := range all {
			if made, err := s.layers.Made(d); err == nil && !h.digests[d] && !made.After(before) {
				g.layers = append(g.layers, d)
			}
		}
	}
	all, err := s.blobs.List()
	for _, b := range all {
		if !h.digests[b.Digest] && !b.Made.After(before) {
			g.blobs = append(g.blobs, b.Digest)
		}
	}
	return g, err
}

// unusedTrees returns the trees that nothing uses; a pull has leased the
// artifact whose tree it has just made.
func (s *Service) unusedTrees(tx *catalog.Tx, h held, before time.Time) ([]string, error) {
	all, err := s.artifacts.List()
	if err != nil {
		return nil, err
	}
	var unused []string
	for name, made := range all {
		id, _ := artifact.ID(name) // List returns no others
		if !h.trees[name] && !tx.Leased(id) && !made.After(before) {
			unused = append(unused, name)
		}
	}
	return unused, nil
}

// collect takes away what nothing uses and what has been here for age, and the
// signatures of manifests that are not here. Each is looked up again just
// before it goes, so that a pull that begins now is safe. rest removes the files: a
// restart does where nobody calls it.
func (s *Service) collect(ctx context.Context, age time.Duration) (rest []func() error, err error) {
	g, err := s.unused(age)
	if err != nil {
		return nil, fmt.Errorf("collect garbage: %w", err)
	}
	failed := []error{s.layers.Sweep(age), s.blobs.Sweep(age)}
	for _, name := range g.trees {
		id, _ := artifact.ID(name)
		inUse := func(tx *catalog.Tx) bool {
			a := tx.All()[id].Artifact
			return tx.Leased(id) || a != nil && a.Tree == name
		}
		failed = append(failed, s.discard(inUse, func() error {
			remove, err := s.artifacts.Discard(name)
			if err == nil {
				rest = append(rest, remove)
			}
			return err
		}))
	}
	needed := func(d digest.Digest) func(*catalog.Tx) bool {
		return func(tx *catalog.Tx) bool { return tx.Used()[d] }
	}
	for _, d := range g.layers {
		failed = append(failed, s.discard(needed(d), func() error {
			remove, err := s.layers.Discard(ctx, d)
			rest = append(rest, remove)
			return err
		}))
	}
	for _, d := range g.blobs {
		failed = append(failed, s.discard(needed(d), func() error { return s.blobs.Remove(d) }))
	}
	signed, err := s.trust.List()
	failed = append(failed, err)
	for _, d := range signed {
		failed = append(failed, s.discard(needed(d), func() error { return s.trust.Remove(d) }))
	}
	damaged, err := doctor{s}.collectDamaged(age)
	return append(rest, damaged...), errors.Join(append(failed, err)...)
}

// finish does what collect has left.
func finish(rest []func() error, err error) error {
	failed := []error{err}
	for _, remove := range rest {
		failed = append(failed, remove())
	}
	return errors.Join(failed...)
}

// discard takes a name away, unless it is in use.
func (s *Service) discard(inUse func(*catalog.Tx) bool, take func() error) error {
	return s.catalog.Do(func(tx *catalog.Tx) error {
		if inUse(tx) {
			return nil
		}
		return take()
	})
}

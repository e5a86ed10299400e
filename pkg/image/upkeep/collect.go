package upkeep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/catalog"
)

// LeftFor is how long what a pull has left waits for one that goes on from it.
const LeftFor = 24 * time.Hour

// CollectOld removes what pulls have left for LeftFor. It does nothing where
// catalog.Open has set a record aside: what that names may be brought back, until
// somebody has Check repair it.
func (k *Keeper) CollectOld(ctx context.Context) error {
	doubt := false
	failed := k.Catalog.Do(func(tx *catalog.Tx) (failed error) {
		doubt = len(tx.Faults()) > 0
		for id, r := range tx.All() {
			if !doubt && r.Fault != nil && time.Since(r.Since) > LeftFor { // nobody has pulled it again
				failed = errors.Join(failed, tx.Forget(id))
			}
		}
		return failed
	})
	if doubt || failed != nil {
		return failed
	}
	return Finish(k.Collect(ctx, LeftFor))
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
func (k *Keeper) held(tx *catalog.Tx) (held, error) {
	h := held{digests: tx.Used(), trees: map[string]bool{}}
	roots, damaged, err := k.Roots.List()
	if err != nil {
		return h, err
	}
	volumes, unknown, err := k.Volumes.List()
	if err != nil {
		return h, err
	}
	h.doubt = len(damaged)+len(unknown) > 0
	for _, r := range roots {
		k.Layers.Mark(h.digests, r.Layers)
	}
	for _, c := range volumes {
		for _, d := range c.Blobs {
			h.digests[d] = true
		}
		for _, v := range c.Volumes {
			h.trees[v.Tree] = true
			k.Layers.Mark(h.digests, v.Layers)
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
func (k *Keeper) unused(age time.Duration) (g garbage, err error) {
	err = k.Catalog.Do(func(tx *catalog.Tx) error {
		g, err = k.unusedIn(tx, time.Now().Add(-age))
		return err
	})
	return g, err
}

func (k *Keeper) unusedIn(tx *catalog.Tx, before time.Time) (g garbage, err error) {
	h, err := k.held(tx)
	if err != nil {
		return g, err
	}
	if !h.doubt {
		if g.trees, err = k.unusedTrees(tx, h, before); err != nil {
			return g, err
		}
		all, err := k.Layers.List()
		if err != nil {
			return g, err
		}
		for _, d := range all {
			if made, err := k.Layers.Made(d); err == nil && !h.digests[d] && !made.After(before) {
				g.layers = append(g.layers, d)
			}
		}
	}
	all, err := k.Blobs.List()
	for _, b := range all {
		if !h.digests[b.Digest] && !b.Made.After(before) {
			g.blobs = append(g.blobs, b.Digest)
		}
	}
	return g, err
}

// unusedTrees returns the trees that nothing uses; a pull has leased the
// artifact whose tree it has just made.
func (k *Keeper) unusedTrees(tx *catalog.Tx, h held, before time.Time) ([]string, error) {
	all, err := k.Artifacts.List()
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

// Collect takes away what nothing uses and what has been here for age, and the
// signatures of manifests that are not here. Each is looked up again just
// before it goes, so that a pull that begins now is safe. rest removes the files: a
// restart does where nobody calls it.
func (k *Keeper) Collect(ctx context.Context, age time.Duration) (rest []func() error, err error) {
	g, err := k.unused(age)
	if err != nil {
		return nil, fmt.Errorf("collect garbage: %w", err)
	}
	failed := []error{k.Layers.Sweep(age), k.Blobs.Sweep(age)}
	for _, name := range g.trees {
		id, _ := artifact.ID(name)
		inUse := func(tx *catalog.Tx) bool {
			a := tx.All()[id].Artifact
			return tx.Leased(id) || a != nil && a.Tree == name
		}
		failed = append(failed, k.discard(inUse, func() error {
			remove, err := k.Artifacts.Discard(name)
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
		failed = append(failed, k.discard(needed(d), func() error {
			remove, err := k.Layers.Discard(ctx, d)
			rest = append(rest, remove)
			return err
		}))
	}
	for _, d := range g.blobs {
		failed = append(failed, k.discard(needed(d), func() error { return k.Blobs.Remove(d) }))
	}
	signed, err := k.Signatures.List()
	failed = append(failed, err)
	for _, d := range signed {
		failed = append(failed, k.discard(needed(d), func() error { return k.Signatures.Remove(d) }))
	}
	damaged, err := k.collectDamaged(age)
	return append(rest, damaged...), errors.Join(append(failed, err)...)
}

// Finish does what Collect has left.
func Finish(rest []func() error, err error) error {
	failed := []error{err}
	for _, remove := range rest {
		failed = append(failed, remove())
	}
	return errors.Join(failed...)
}

// discard takes a name away, unless it is in use.
func (k *Keeper) discard(inUse func(*catalog.Tx) bool, take func() error) error {
	return k.Catalog.Do(func(tx *catalog.Tx) error {
		if inUse(tx) {
			return nil
		}
		return take()
	})
}

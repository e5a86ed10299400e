package upkeep

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
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/manifest"
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
func (k *Keeper) Check(ctx context.Context, repair bool, containers func() []string) ([]Problem, error) {
	var problems []Problem
	k.Catalog.With(func(tx *catalog.Tx) {
		for _, f := range tx.Faults() {
			problems = append(problems, Problem{Object: f.Path, What: f.What, Repaired: repair}) // set aside by Open already
		}
		if repair {
			tx.Forgive()
		}
	})
	for _, check := range []func(context.Context, bool) ([]Problem, error){
		k.checkBlobs,
		k.checkTrees,
		k.checkImages,
		k.checkDamaged,
		func(ctx context.Context, repair bool) ([]Problem, error) {
			return k.checkRoots(ctx, repair, containers)
		},
		k.checkGarbage,
	} {
		more, err := check(ctx, repair)
		problems = append(problems, more...)
		if err != nil {
			return problems, fmt.Errorf("check images: %w", err)
		}
	}
	return problems, nil
}

// checkImages looks for content that records name and that is missing or damaged,
// and for names of nothing.
func (k *Keeper) checkImages(ctx context.Context, repair bool) ([]Problem, error) {
	var problems []Problem
	err := k.Catalog.Do(func(tx *catalog.Tx) error {
		tx.Review(ctx, slices.Collect(maps.Keys(tx.All()))...)
		for id, r := range tx.All() {
			if r.Fault != nil {
				problems = append(problems, Problem{Object: "image " + id.String(), What: fmt.Sprintf("%v: pull %s again", r.Fault, anyName(tx, id))})
			}
		}
		for name, id := range tx.Names() {
			if _, ok := tx.Record(id); ok {
				continue
			}
			p := Problem{Object: "reference " + name, What: fmt.Sprintf("is to image %s, which is not here: pull it again", id)}
			if repair {
				p.Repaired = tx.DropName(name) == nil // else the next check finds it again
			}
			problems = append(problems, p)
		}
		return nil
	})
	return problems, err
}

// anyName returns a name by which an image can be pulled, or its id.
func anyName(tx *catalog.Tx, id digest.Digest) string {
	var names []string
	for name, image := range tx.Names() {
		if image == id {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return id.String()
	}
	return slices.Min(names)
}

// checkDamaged tells of layers that were set aside.
func (k *Keeper) checkDamaged(_ context.Context, repair bool) ([]Problem, error) {
	damaged, err := k.damagedLayers()
	var problems []Problem
	for _, d := range damaged {
		p := Problem{Object: "layer " + d.DiffID.String(), What: "was damaged, and is set aside as " + d.Path}
		switch {
		case d.used:
			p.What += ": a container was made on it"
		case repair:
			p.Repaired = k.Layers.RemoveDamaged(d.Damaged) == nil // else the next check finds it again
		}
		problems = append(problems, p)
	}
	return problems, err
}

func (k *Keeper) checkRoots(ctx context.Context, repair bool, containers func() []string) ([]Problem, error) {
	if containers == nil {
		return nil, nil
	}
	roots, damaged, err := k.Roots.List()
	if err != nil {
		return nil, err
	}
	ids := damaged
	for _, r := range roots {
		ids = append(ids, r.ID)
	}
	mounted, err := k.Roots.Mounted()
	if err != nil {
		return nil, err
	}
	volumes, unknown, err := k.Volumes.List()
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
			if err := k.Unmount(ctx, id); err != nil {
				p.What += ": " + err.Error()
			} else {
				p.Repaired = true
			}
		}
		problems = append(problems, p)
	}
	return problems, nil
}

func (k *Keeper) checkGarbage(ctx context.Context, repair bool) ([]Problem, error) {
	g, err := k.unused(0)
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
		err = Finish(k.Collect(ctx, 0))
	}
	return problems, err
}

// checkBlobs reads blobs again; those that are larger than a config only with
// repair, because it takes a while.
func (k *Keeper) checkBlobs(ctx context.Context, repair bool) ([]Problem, error) {
	all, err := k.Blobs.List()
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, b := range all {
		if b.Size > manifest.MaxConfig && !repair {
			continue
		}
		err := k.Blobs.Verify(ctx, b.Digest)
		switch {
		case ctx.Err() != nil:
			return problems, ctx.Err()
		case err == nil, errors.Is(err, errs.NotFound): // removed meanwhile
			continue
		}
		p := Problem{Object: "blob " + b.Digest.String(), What: err.Error()}
		if repair {
			p.Repaired = k.dropBlob(ctx, b.Digest, err) == nil // else the next check finds it again
		}
		problems = append(problems, p)
	}
	return problems, nil
}

// checkTrees reads what archives of artifacts have left, with repair, as it does
// with blobs. A damaged tree stays for who has mounted it.
func (k *Keeper) checkTrees(ctx context.Context, repair bool) ([]Problem, error) {
	if !repair {
		return nil, nil
	}
	var problems []Problem
	for _, r := range k.Catalog.Records() {
		if r.Artifact == nil {
			continue
		}
		files, err := files(k.Blobs, r)
		if err == nil {
			err = k.Artifacts.Verify(ctx, r.Artifact.Tree, files)
		}
		if ctx.Err() != nil {
			return problems, ctx.Err()
		}
		if err == nil || errors.Is(err, errs.NotFound) { // which checkImages tells
			continue
		}
		problems = append(problems, Problem{
			Object: "artifact " + r.ID.String(), What: err.Error(), Repaired: k.Artifacts.Damage(r.Artifact.Tree) == nil,
		})
	}
	return problems, nil
}

// files reads an artifact's manifest again.
func files(from *blob.Store, r catalog.Record) ([]artifact.File, error) {
	data, err := from.ReadAll(r.Manifest.Digest, manifest.MaxSize)
	if err != nil {
		return nil, err
	}
	m, err := manifest.ParseManifest(data, "manifest "+r.ID.String())
	if err != nil {
		return nil, err
	}
	return artifact.Files(*m)
}

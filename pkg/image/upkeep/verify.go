package upkeep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/manifest"
)

// Fault returns what keeps an image from being used: content that is missing or
// damaged. Such an image is not shown, so that kubelet pulls it again; its record
// and its names stay, and hold what is left of it for that pull.
func (k *Keeper) Fault(r *catalog.Record) error {
	if r.Artifact != nil {
		files, err := files(k.Blobs, *r)
		return errors.Join(err, k.Artifacts.Linked(r.Artifact.Tree, files))
	}
	for _, d := range []digest.Digest{r.ID, r.Manifest.Digest} {
		data, err := k.Blobs.ReadAll(d, manifest.MaxConfig)
		if err == nil && d == r.ID {
			r.Config, err = manifest.ParseConfig(data)
		}
		if err != nil {
			return err
		}
	}
	for _, d := range r.DiffIDs() { // what is stacked is made again of these
		if !k.Layers.Has(d) {
			return fmt.Errorf("layer %s: %w", d, errs.NotFound)
		}
	}
	return nil
}

// Quarantine sets a damaged layer aside. Images that use it are absent then.
func (k *Keeper) Quarantine(ctx context.Context, d digest.Digest, damage error) error {
	klog.FromContext(ctx).Error(damage, "Setting a damaged layer aside", "layer", d)
	if err := k.Layers.Quarantine(ctx, d); err != nil {
		return err
	}
	k.Catalog.Review(ctx, d)
	return nil
}

// VerifyProgress tells which object Verify reads, and how far it is.
type VerifyProgress struct {
	Object      string
	Done, Total int64 // bytes
}

// Verify reads every byte of all blobs and layers again, and returns what is
// damaged. With repair, damaged blobs are removed and damaged layers set aside;
// the next pull of an image brings what it lacks. progress may be nil.
func (k *Keeper) Verify(ctx context.Context, repair bool, progress func(VerifyProgress)) ([]Problem, error) {
	objects, err := k.objects()
	if err != nil {
		return nil, fmt.Errorf("verify images: %w", err)
	}
	at := VerifyProgress{}
	for _, o := range objects {
		at.Total += o.size
	}
	tell := func(object string) {
		if at.Object = object; progress != nil {
			progress(at)
		}
	}
	var problems []Problem
	for _, o := range objects {
		tell(o.what + " " + o.digest.String())
		err := o.verify(ctx, o.digest)
		switch {
		case ctx.Err() != nil:
			return problems, ctx.Err()
		case err != nil && !errors.Is(err, errs.NotFound): // else removed meanwhile
			p := Problem{Object: at.Object, What: err.Error()}
			if repair {
				if failed := o.repair(ctx, o.digest, err); failed != nil {
					p.What += ": " + failed.Error()
				} else {
					p.Repaired = true
				}
			}
			problems = append(problems, p)
		}
		at.Done += o.size
	}
	tell("")
	return problems, nil
}

// object is something that can be read again.
type object struct {
	what   string
	digest digest.Digest
	size   int64
	verify func(context.Context, digest.Digest) error
	repair func(context.Context, digest.Digest, error) error
}

func (k *Keeper) objects() ([]object, error) {
	blobs, err := k.Blobs.List()
	if err != nil {
		return nil, err
	}
	var all []object
	for _, b := range blobs {
		all = append(all, object{"blob", b.Digest, b.Size, k.Blobs.Verify, k.dropBlob})
	}
	for _, r := range k.Catalog.Records() {
		if r.Artifact != nil {
			all = append(all, object{"artifact", r.ID, r.Size, k.artifactVerifier(r), k.dropTree})
		}
	}
	layers, err := k.Layers.List()
	for _, d := range layers {
		size, _ := k.Layers.Usage(d) // of one that has no record: 0
		all = append(all, object{"layer", d, size, k.Layers.Verify, k.Quarantine})
	}
	return all, err
}

// artifactVerifier reads what an artifact's archives have left.
func (k *Keeper) artifactVerifier(r catalog.Record) func(context.Context, digest.Digest) error {
	return func(ctx context.Context, _ digest.Digest) error {
		files, err := files(k.Blobs, r)
		if err == nil {
			err = k.Artifacts.Verify(ctx, r.Artifact.Tree, files)
		}
		return err
	}
}

// dropTree marks an artifact's tree damaged, which stays for who has mounted it.
func (k *Keeper) dropTree(ctx context.Context, id digest.Digest, damage error) error {
	klog.FromContext(ctx).Error(damage, "An artifact is damaged", "artifact", id)
	return k.Catalog.Do(func(tx *catalog.Tx) error {
		r, ok := tx.Record(id)
		if !ok || r.Artifact == nil {
			return nil
		}
		err := k.Artifacts.Damage(r.Artifact.Tree)
		tx.Review(ctx, id)
		return err
	})
}

// dropBlob removes a damaged blob. Images that need it are absent then.
func (k *Keeper) dropBlob(ctx context.Context, d digest.Digest, damage error) error {
	klog.FromContext(ctx).Error(damage, "Removing a damaged blob", "blob", d)
	if err := k.Blobs.Remove(d); err != nil {
		return err
	}
	k.Catalog.Review(ctx, d)
	return nil
}

// collectDamaged returns what removes the layers that were set aside at least age ago and that
// no root file system can show.
func (k *Keeper) collectDamaged(age time.Duration) (rest []func() error, err error) {
	damaged, err := k.damagedLayers()
	for _, d := range damaged {
		if !d.used && time.Since(d.Since) >= age {
			rest = append(rest, func() error { return k.Layers.RemoveDamaged(d.Damaged) })
		}
	}
	return rest, err
}

// damagedLayer is a layer that was set aside. A container that was made before may
// still show it.
type damagedLayer struct {
	layer.Damaged
	used bool
}

func (k *Keeper) damagedLayers() ([]damagedLayer, error) {
	aside, err := k.Layers.ListDamaged()
	if err != nil || len(aside) == 0 {
		return nil, err
	}
	roots, unknown, err := k.Roots.List()
	if err != nil {
		return nil, err
	}
	volumes, lost, err := k.Volumes.List()
	if err != nil {
		return nil, err
	}
	mounted := map[digest.Digest]bool{} // as volumes, perhaps since before
	for _, c := range volumes {
		for _, v := range c.Volumes {
			k.Layers.Mark(mounted, v.Layers)
		}
	}
	var all []damagedLayer
	for _, d := range aside {
		used := map[digest.Digest]bool{d.DiffID: len(unknown)+len(lost) > 0 || mounted[d.DiffID]}
		for _, r := range roots {
			if !r.Made.After(d.Since) {
				k.Layers.Mark(used, r.Layers)
			}
		}
		all = append(all, damagedLayer{d, used[d.DiffID]})
	}
	return all, nil
}

// Package upkeep finds out which of the content that is kept for images is whole,
// damaged, or needed by nobody, and mends or removes it.
//
// What is needed is what records, leases, root file systems and mounted volumes
// name. Each thing is looked up again, in a transaction of the catalog, just before
// it goes, so that a pull that begins now is safe. Damaged content is set aside or
// removed, and the images that need it are not shown until a pull has brought it
// again.
package upkeep

import (
	"context"

	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/rootfs"
	"github.com/berth-run/berth/pkg/image/trust"
	"github.com/berth-run/berth/pkg/image/volume"
)

// Keeper looks after content. Its methods are safe for concurrent use.
type Keeper struct {
	Catalog    *catalog.Catalog
	Blobs      *blob.Store
	Layers     *layer.Store
	Artifacts  *artifact.Store
	Roots      *rootfs.Roots
	Volumes    *volume.Store
	Signatures *trust.Gate
}

// Unmount unmounts a container's root file system and its volumes, and removes what
// it has written. It is idempotent.
func (k *Keeper) Unmount(ctx context.Context, id string) error {
	if err := k.Volumes.Unmount(ctx, id); err != nil {
		return err
	}
	return k.Roots.Unmount(ctx, id)
}

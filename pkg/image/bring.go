package image

import (
	"context"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/internal/keylock"
)

// bringer fetches blobs that are kept as they are. (Layers come through the layer
// store, which fetches each once, too.)
type bringer struct {
	blobs *blob.Store
	locks keylock.Locks // by digest
}

// bring keeps a blob, unless it is kept. Of those who want it at one time one
// fetches it.
func (b *bringer) bring(ctx context.Context, d ispec.Descriptor, src source, report *reporter) error {
	if err := blob.Validate(d.Digest); err != nil {
		return err
	}
	unlock, err := b.locks.Lock(ctx, d.Digest.String())
	if err != nil {
		return err
	}
	defer unlock()
	if b.blobs.Has(d.Digest) {
		return nil
	}
	r, err := src.Blob(ctx, d, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	return b.blobs.Put(ctx, d.Digest, d.Size, report.reader(r, d))
}

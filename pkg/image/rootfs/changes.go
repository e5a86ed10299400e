package rootfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/changes"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// Changes writes what a container has written, which nobody may add to meanwhile,
// as package changes does. The error is of kind NotFound without such a container.
func (r *Roots) Changes(ctx context.Context, id string, w io.Writer) error {
	root, err := r.record(id)
	if err != nil {
		return fmt.Errorf("changes of root file system %s: %w: %w", id, err, errs.NotFound)
	}
	if !root.mappings().Empty() {
		return fmt.Errorf("changes of root file system %s in a user namespace: %w", id, errs.Unsupported)
	}
	return changes.Write(ctx, filepath.Join(r.writable, id, upperDir), w)
}

// restore makes what is in the writable directory of root's changes.
func (r *Roots) restore(ctx context.Context, root Root, base string) error {
	if !root.mappings().Empty() {
		return fmt.Errorf("changes of another user namespace: %w", errs.Unsupported)
	}
	if err := os.Mkdir(filepath.Join(base, workDir), 0o755); err != nil {
		return err
	}
	if err := changes.Apply(ctx, filepath.Join(base, upperDir), root.Changes); err != nil {
		return err
	}
	return statefile.Write(filepath.Join(base, rootFile), root)
}

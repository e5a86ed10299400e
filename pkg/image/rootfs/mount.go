package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/overlay"
)

// mount mounts root at target.
func (r *Roots) mount(ctx context.Context, root Root, target string) error {
	lower, done, err := r.lower(ctx, root, 1)
	if err != nil {
		return err
	}
	defer done()
	writable := filepath.Join(r.writable, root.ID)
	o := overlay.Mount{Lower: lower, Upper: filepath.Join(writable, upperDir), Work: filepath.Join(writable, workDir), Label: root.SELinuxLabel}
	return o.Attach(target)
}

// View mounts the layers of root at target for nobody to write to, and leaves no
// record: the caller keeps the layers and unmounts them. root.ID names the call.
func (r *Roots) View(ctx context.Context, root Root, target string) error {
	lower, done, err := r.lower(ctx, root, 2)
	if err != nil {
		return fmt.Errorf("mount layers: %w", err)
	}
	defer done()
	return overlay.Mount{Lower: lower, Label: root.SELinuxLabel}.Attach(target)
}

// lower returns at least so many directories to mount for root's layers, the
// lowest first, and what to call once they are mounted.
func (r *Roots) lower(ctx context.Context, root Root, atLeast int) (dirs []string, done func(), err error) {
	l := layer.Lower{Base: filepath.Dir(root.Tree), Dirs: []string{filepath.Base(root.Tree)}}
	if root.Tree == "" {
		if l, err = r.layers.Lower(ctx, root.Layers); err != nil {
			return nil, nil, err
		}
	}
	for n := len(l.Dirs); n < atLeast; n++ {
		empty := filepath.Join(r.mounts, emptyLayer+strconv.Itoa(n))
		if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, nil, err
		}
		dirs = append(dirs, empty)
	}
	base, done := l.Base, func() {}
	if !root.mappings().Empty() {
		m, err := r.mapped(root, base)
		if err != nil {
			return nil, nil, err
		}
		base, done = m.dir, m.close
	}
	for _, d := range l.Dirs {
		dirs = append(dirs, filepath.Join(base, d))
	}
	return dirs, done, nil
}

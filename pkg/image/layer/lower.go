package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/overlay"
)

const emptyLayer = ".empty" // in the store, where an image without layers is mounted

// Lower is what overlay stacks.
type Lower struct {
	Base string   // a directory that is or lies on the one mount that holds all
	Dirs []string // below Base, the lowest layer first; one at least
}

// Lower returns the directories of a stack that Stack has returned, and mounts what
// is to be mounted for that. They stay where they are until one of the stack's
// layers is discarded or mended.
func (s *Store) Lower(ctx context.Context, stack []digest.Digest) (Lower, error) {
	if len(stack) == 1 {
		if info, err := s.read(stack[0], imageRecord); err == nil {
			at, err := s.mounted(ctx, info)
			if errors.Is(err, ErrDamaged) && s.erofs { // what it is made of may be whole
				if err = s.Quarantine(ctx, info.DiffID); err == nil {
					_, err = s.compose(ctx, info.Layers, func(...digest.Digest) {}) // who asks keeps it
				}
				if info, _ = s.read(stack[0], imageRecord); err == nil {
					at, err = s.mounted(ctx, info)
				}
			}
			return Lower{Base: at, Dirs: []string{"."}}, err
		}
	}
	if len(stack) > overlay.MaxStack {
		return Lower{}, tooMany(len(stack))
	}
	l := Lower{Base: s.dir}
	for _, d := range stack {
		l.Dirs = append(l.Dirs, filepath.Join(name(d), treeDir))
	}
	if len(l.Dirs) == 0 { // overlay needs one
		if err := os.Mkdir(filepath.Join(s.dir, emptyLayer), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return Lower{}, fmt.Errorf("make empty layer: %w", err)
		}
		l.Dirs = []string{emptyLayer}
	}
	return l, nil
}

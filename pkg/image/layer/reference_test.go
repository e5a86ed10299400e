package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/entry/entrytest"
)

// reference applies layers in order to a plain directory: what Stack must equal.
type reference struct {
	root string
	own  []entrytest.Item // of the layer that is being applied
}

// errAmbiguous says that a layer leads through a link of the layers below to
// where it has something itself: what comes of it depends on the order within
// the layer, and nothing is promised but an error of its kind.
var errAmbiguous = errors.New("ambiguous")

// ambiguous reports whether the layer has anything at or below the path that a
// link leads to, or replaces the link.
func (r reference) ambiguous(link, target string) bool {
	for _, e := range r.own {
		p := strings.TrimSuffix(e.Name, "/")
		if hidden, ok := strings.CutPrefix(filepath.Base(p), entry.WhiteoutPrefix); ok {
			p = filepath.Join(filepath.Dir(p), hidden)
		}
		if p == link || p == target || target == "." || strings.HasPrefix(p, target+"/") || strings.HasPrefix(target, p+"/") {
			return true
		}
	}
	return false
}

// dir returns the directory rel, following links inside the root, and makes what
// is missing. A file, or a link that leads to no directory, gives way.
func (r reference) dir(rel string) (string, error) {
	at := r.root
	for _, c := range strings.Split(rel, "/") {
		if c == "." || c == "" {
			continue
		}
		next := filepath.Join(at, c)
		info, err := os.Lstat(next)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			in, err := filepath.Rel(r.root, next)
			if err != nil {
				return "", err
			}
			to, err := securejoin.SecureJoin(r.root, in)
			if errors.Is(err, unix.ELOOP) {
				to = next // leads nowhere
			} else if err != nil {
				return "", err
			}
			target, err := filepath.Rel(r.root, to)
			if err != nil {
				return "", err
			}
			if to != next && r.ambiguous(in, target) {
				return "", errAmbiguous
			}
			if there, err := os.Lstat(to); err == nil && there.IsDir() {
				at = to
				continue
			}
		}
		if err != nil || !info.IsDir() {
			if err := os.RemoveAll(next); err != nil {
				return "", err
			}
			if err := os.Mkdir(next, 0o755); err != nil {
				return "", err
			}
			if err := os.Chmod(next, 0o755); err != nil {
				return "", err
			}
		}
		at = next
	}
	return at, nil
}

// layer applies one layer: whiteouts hide what is below, so they come first.
func (r reference) layer(entries []entrytest.Item) error {
	for _, e := range entries {
		base := filepath.Base(e.Name)
		if !strings.HasPrefix(base, entry.WhiteoutPrefix) {
			continue
		}
		dir, err := r.dir(filepath.Dir(e.Name))
		if err != nil {
			return err
		}
		if base != entry.WhiteoutOpaque {
			if err := os.RemoveAll(filepath.Join(dir, strings.TrimPrefix(base, entry.WhiteoutPrefix))); err != nil {
				return err
			}
			continue
		}
		children, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, c := range children {
			if err := os.RemoveAll(filepath.Join(dir, c.Name())); err != nil {
				return err
			}
		}
	}
	for _, e := range entries {
		if err := r.entry(e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func (r reference) entry(e entrytest.Item) error {
	base := filepath.Base(e.Name)
	if strings.HasPrefix(base, entry.WhiteoutPrefix) {
		return nil
	}
	dir, err := r.dir(filepath.Dir(strings.TrimSuffix(e.Name, "/")))
	if err != nil {
		return err
	}
	p := filepath.Join(dir, base)
	info, err := os.Lstat(p)
	if strings.HasSuffix(e.Name, "/") {
		if err != nil || !info.IsDir() {
			if err := errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o700)); err != nil {
				return err
			}
		}
		return errors.Join(os.Chown(p, e.UID, e.GID), unix.Chmod(p, uint32(e.Mode)))
	}
	switch e.Kind {
	case tar.TypeSymlink:
		return errors.Join(os.RemoveAll(p), os.Symlink(e.Link, p), os.Lchown(p, e.UID, e.GID))
	case tar.TypeLink:
		parent, err := r.dir(filepath.Dir(e.Link))
		if err != nil {
			return err
		}
		target := filepath.Join(parent, filepath.Base(e.Link))
		return errors.Join(os.RemoveAll(p), os.Link(target, p))
	}
	return errors.Join(os.RemoveAll(p), os.WriteFile(p, []byte(e.Data), 0o600), os.Chown(p, e.UID, e.GID), unix.Chmod(p, uint32(e.Mode)))
}

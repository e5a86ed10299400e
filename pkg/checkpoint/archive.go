package checkpoint

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berth-run/berth/pkg/errs"
)

// Archive writes what is below dir to a tar at an absolute path, in the place of a file
// that is there. Where it fails nothing is there that was not before.
func Archive(ctx context.Context, dir, to string) error {
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }() // renamed away where it succeeds
	err = pack(ctx, dir, out)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// CheckLocation refuses places that Archive cannot write to.
func CheckLocation(to string) error {
	if !filepath.IsAbs(to) || filepath.Clean(to) != to {
		return fmt.Errorf("checkpoint archive %q: an absolute path is needed: %w", to, errs.Invalid)
	}
	info, err := os.Stat(filepath.Dir(to))
	if err != nil || !info.IsDir() {
		return fmt.Errorf("checkpoint archive %s: its directory is not there: %w", to, errs.Invalid)
	}
	if info, err := os.Lstat(to); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("checkpoint archive %s: something else than a file is there: %w", to, errs.Invalid)
	}
	return nil
}

func pack(ctx context.Context, dir string, out io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := tar.NewWriter(out)
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		return add(w, root, name, e)
	})
	return errors.Join(err, w.Close())
}

func add(w *tar.Writer, root *os.Root, name string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	if e.IsDir() {
		h.Typeflag, h.Name, h.Size = tar.TypeDir, name+"/", 0
		return w.WriteHeader(h)
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

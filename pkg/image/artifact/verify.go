package artifact

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/digester"
)

// Linked returns nil if a tree is whole and each of its files is the blob that the
// blob store has now. It reads no content. The error is of kind NotFound.
func (s *Store) Linked(name string, files []File) error {
	if _, err := s.Info(name); err != nil {
		return err
	}
	root, err := os.OpenRoot(s.Tree(name))
	if err != nil {
		return fmt.Errorf("artifact tree %s: %w: %w", name, err, errs.NotFound)
	}
	defer root.Close()
	for _, f := range files {
		if f.Archive() {
			continue
		}
		here, err := root.Lstat(f.Name)
		if err == nil && !s.blobs.Same(f.Blob.Digest, here) {
			err = fmt.Errorf("is not blob %s", f.Blob.Digest)
		}
		if err != nil {
			return fmt.Errorf("artifact tree %s: file %.200q: %w: %w", name, f.Name, err, errs.NotFound)
		}
	}
	return nil
}

// Verify reads again what archives have left in a tree. Files are blobs, which the
// blob store verifies. The error is blob.ErrMismatch where something has changed.
func (s *Store) Verify(ctx context.Context, name string, files []File) error {
	info, err := s.Info(name)
	if err != nil || info.Unpacked == "" {
		return err
	}
	root, err := os.OpenRoot(s.Tree(name))
	if err != nil {
		return err
	}
	defer root.Close()
	got, err := sum(ctx, root, files)
	if err != nil {
		return fmt.Errorf("verify artifact tree %s: %w", name, err)
	}
	if got != info.Unpacked {
		return fmt.Errorf("artifact tree %s: what was unpacked has digest %s, not %s: %w", name, got, info.Unpacked, blob.ErrMismatch)
	}
	return nil
}

// sum is the digest of all in root but files and the directories that only they
// need.
func sum(ctx context.Context, root *os.Root, files []File) (digest.Digest, error) {
	skip := map[string]bool{}
	for _, f := range files {
		skip[f.Name] = true
	}
	h := digester.New(digest.SHA256)
	err := fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || skip[p] || d.IsDir() {
			return err
		}
		return describe(ctx, h, root, p)
	})
	return digest.NewDigest(digest.SHA256, h), err
}

// describe writes one entry: owner, mode, name, content.
func describe(ctx context.Context, w io.Writer, root *os.Root, p string) error {
	info, err := root.Lstat(p)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	fmt.Fprintf(w, "%q %o %d:%d %d %d\n", p, st.Mode, st.Uid, st.Gid, st.Rdev, info.Size())
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		target, err := root.Readlink(p)
		fmt.Fprintf(w, "%q\n", target)
		return err
	case 0:
		f, err := root.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, blob.ContextReader(ctx, f))
		return err
	}
	return nil
}

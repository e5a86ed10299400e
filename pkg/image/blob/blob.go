// Package blob keeps content-addressed files that have been verified.
//
// A blob is the file <dir>/sha256/<hex> (or sha512). It is written to
// <dir>/ingest first, and gets its name only when its bytes have been counted,
// hashed against the digest that was asked for, and synced; so what is there is
// whole. What comes from elsewhere is a beginning there (package partial) that the
// next process goes on with, until Sweep removes it; what else a crash leaves in
// ingest is removed by Open. A digest is validated before it becomes a path. Methods
// are safe for concurrent use; nothing is kept in memory but locks.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/partial"
	"github.com/berth-run/berth/pkg/internal/keylock"
)

var algorithms = [...]digest.Algorithm{digest.SHA256, digest.SHA512}

// Store is a directory of blobs.
type Store struct {
	dir      string
	bringing keylock.Locks // by digest
}

// Open returns the store at dir, which it makes if need be, and removes what
// unfinished writes have left. One that is there already opens on a full disk.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	old, err := os.ReadDir(s.ingest())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sweep blobs: %w", err)
	}
	for _, e := range old {
		if partial.Is(e.Name()) {
			continue // Sweep looks how old it is
		}
		if err := os.RemoveAll(filepath.Join(s.ingest(), e.Name())); err != nil {
			return nil, fmt.Errorf("sweep blobs: %w", err)
		}
	}
	dirs := []string{s.ingest()}
	for _, a := range algorithms {
		dirs = append(dirs, filepath.Join(dir, a.String()))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make blob store: %w", err)
		}
	}
	return s, nil
}

func (s *Store) ingest() string { return filepath.Join(s.dir, "ingest") }

// path is the place of d, or an error of kind Invalid where d is no digest.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := Validate(d); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, d.Algorithm().String(), d.Encoded()), nil
}

// Validate returns an error of kind Invalid unless d is a well-formed digest of
// an algorithm that the store knows. What it accepts is safe in a path.
func Validate(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.200q: %w: %w", string(d), err, errs.Invalid)
	}
	for _, a := range algorithms {
		if d.Algorithm() == a {
			return nil
		}
	}
	return fmt.Errorf("digest %.200q: algorithm is not kept here: %w", string(d), errs.Unsupported)
}

// Size returns the size of a blob, or an error of kind NotFound.
func (s *Store) Size(d digest.Digest) (int64, error) {
	p, err := s.path(d)
	if err != nil {
		return 0, err
	}
	info, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("blob %s: %w", d, errs.NotFound)
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Has reports whether the store holds d.
func (s *Store) Has(d digest.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Open opens a blob for reading; the caller closes it. The error is of kind
// NotFound where there is none.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	p, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", d, errs.NotFound)
	}
	return f, err
}

// OpenAt is Open from an offset in bytes on.
func (s *Store) OpenAt(d digest.Digest, offset int64) (*os.File, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadAll returns a whole blob of at most limit bytes, verified again.
func (s *Store) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("blob %s: more than %d bytes: %w", d, limit, errs.Invalid)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, fmt.Errorf("blob %s: its bytes have digest %s: %w", d, got, ErrMismatch)
	}
	return data, nil
}

// Put copies r into the store as d; a size below zero is not known. Nothing is
// visible unless every byte was right. A blob that is there already is left
// alone and r is not read.
func (s *Store) Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	if s.Has(d) {
		return nil
	}
	w, err := s.Create(d, size)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.Copy(w, ContextReader(ctx, r)); err != nil {
		return fmt.Errorf("write blob %s: %w", d, err)
	}
	return w.Commit()
}

// Bring keeps a blob unless it is kept, from what open gives from an offset in bytes
// on. Of those who want it at one time one calls open. What a Bring that has failed
// leaves is gone on with by the next, in another process too; it is read again, and
// where the whole is not right, the blob begins anew.
func (s *Store) Bring(ctx context.Context, d digest.Digest, size int64, open func(offset int64) (io.ReadCloser, error)) error {
	for {
		resumed, err := s.bring(ctx, d, size, open)
		if !resumed || !errors.Is(err, ErrMismatch) || errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
	}
}

func (s *Store) bring(ctx context.Context, d digest.Digest, size int64, open func(offset int64) (io.ReadCloser, error)) (resumed bool, err error) {
	w, err := s.Continue(ctx, d, size)
	if err != nil || w == nil {
		return false, err
	}
	defer w.Close()
	r := w.From(open)
	defer r.Close()
	if _, err := io.Copy(w, ContextReader(ctx, r)); err != nil {
		return w.Resumed(), fmt.Errorf("write blob %s: %w", d, err)
	}
	return w.Resumed(), w.Commit()
}

// Remove removes a blob; that it is absent is no error.
func (s *Store) Remove(d digest.Digest) error {
	p, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Entry is one blob of a List.
type Entry struct {
	Digest digest.Digest
	Size   int64
	Made   time.Time // when it was written
}

// List returns every blob. Names that are no digests are passed over.
func (s *Store) List() ([]Entry, error) {
	var all []Entry
	for _, a := range algorithms {
		names, err := os.ReadDir(filepath.Join(s.dir, a.String()))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			d := digest.NewDigestFromEncoded(a, n.Name())
			if Validate(d) != nil {
				continue
			}
			info, err := n.Info()
			if err != nil {
				continue // removed meanwhile
			}
			all = append(all, Entry{Digest: d, Size: info.Size(), Made: info.ModTime()})
		}
	}
	return all, nil
}

// Verify reads a blob again. The error is ErrMismatch where its bytes are not what
// its name says, and of kind NotFound where there is none.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	f, err := s.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // else memory answers for the disk
	if _, err := io.Copy(io.Discard, NewVerifier(ContextReader(ctx, f), d, -1)); err != nil {
		return fmt.Errorf("verify blob %s: %w", d, err)
	}
	return nil
}

// Link makes a hard link to a blob in the open directory dir, for everybody to
// read: the blob itself can be read by all who reach it from then on.
func (s *Store) Link(d digest.Digest, dir int, name string) error {
	p, err := s.path(d)
	if err != nil {
		return err
	}
	if err := os.Chmod(p, 0o444); err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	if err := unix.Linkat(unix.AT_FDCWD, p, dir, name, 0); err != nil {
		return &os.LinkError{Op: "link", Old: p, New: name, Err: err}
	}
	return nil
}

// Same reports whether info is of the blob's own file.
func (s *Store) Same(d digest.Digest, info fs.FileInfo) bool {
	p, err := s.path(d)
	if err != nil {
		return false
	}
	own, err := os.Lstat(p)
	return err == nil && os.SameFile(own, info)
}

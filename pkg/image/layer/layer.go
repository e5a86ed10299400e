// Package layer keeps image layers as unpacked directories, to be stacked by
// overlay.
//
// A layer is unpacked alone, without the layers below it, so that layers unpack
// in parallel and are shared by every image that has them. It lives in
// <dir>/<algorithm>-<diffID>: fs/ is the tree in overlay's own form and
// layer.json, written last, says that the tree is whole and on disk. What a tree
// cannot know alone is noted in layer.json; Stack settles it for one image in a
// small layer of its own, above.
//
// There are no nested locks.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	infoVersion = 1
	infoFile    = "layer.json"
	treeDir     = "fs"
)

// Store is a directory of unpacked layers. Its methods are safe for concurrent
// use.
type Store struct {
	dir    string
	limits entry.Limits
	locks  keylock.Locks // by layer name, held while it is made
	sync   groupSync
}

// Info describes an unpacked layer.
type Info struct {
	Version int           `json:"version"`
	DiffID  digest.Digest `json:"diffID"`
	directory.Made
}

// Open returns the store at dir, which it makes if need be, and removes what
// unfinished unpacking has left.
func Open(dir string, limits entry.Limits) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make layer store: %w", err)
	}
	s := &Store{dir: dir, limits: limits.WithDefaults()}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ingestPrefix) {
			if err := directory.Sweep(filepath.Join(dir, n.Name())); err != nil {
				return nil, fmt.Errorf("sweep layers: %w", err)
			}
		}
	}
	return s, nil
}

// ingestPrefix begins the name of a directory that is not a layer: one being
// written, or one being removed.
const ingestPrefix = ".ingest-"

// name is the directory of a layer. The digest must be valid.
func name(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func (s *Store) path(d digest.Digest) (string, error) {
	if err := blob.Validate(d); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, name(d)), nil
}

// Info returns what the store knows of a layer. The error is of kind NotFound
// where the layer is absent or not whole.
func (s *Store) Info(diffID digest.Digest) (Info, error) {
	p, err := s.path(diffID)
	if err != nil {
		return Info{}, err
	}
	var info Info
	err = statefile.Read(filepath.Join(p, infoFile), &info)
	if err == nil && (info.Version != infoVersion || info.DiffID != diffID) {
		err = fmt.Errorf("record of version %d for %q: %w", info.Version, info.DiffID, statefile.ErrCorrupt)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, statefile.ErrCorrupt):
		return Info{}, fmt.Errorf("layer %s: %w: %w", diffID, err, errs.NotFound)
	case err != nil:
		return Info{}, err
	}
	return info, nil
}

// Has reports whether the store holds the whole layer.
func (s *Store) Has(diffID digest.Digest) bool {
	_, err := s.Info(diffID)
	return err == nil
}

// Made returns when a layer was put here, whole or not.
func (s *Store) Made(diffID digest.Digest) (time.Time, error) {
	p, err := s.path(diffID)
	if err != nil {
		return time.Time{}, err
	}
	info, err := os.Lstat(p)
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// List returns the diffIDs of all layers, stacking layers and damaged ones
// included.
func (s *Store) List() ([]digest.Digest, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []digest.Digest
	for _, n := range names {
		algorithm, hex, _ := strings.Cut(n.Name(), "-")
		if d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex); blob.Validate(d) == nil {
			all = append(all, d)
		}
	}
	return all, nil
}

// Discard takes a layer away by name, quickly, and returns the function that
// removes its files, to be called once. The caller knows that nothing mounts it.
// That it is absent is no error.
func (s *Store) Discard(ctx context.Context, diffID digest.Digest) (rest func() error, err error) {
	p, err := s.path(diffID)
	if err != nil {
		return nil, err
	}
	unlock, err := s.locks.Lock(ctx, name(diffID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	aside, err := s.setAside(p)
	if err != nil {
		return nil, err
	}
	return func() error {
		if aside == "" {
			return nil
		}
		return os.RemoveAll(aside)
	}, nil
}

// setAside renames a layer so that it is no longer one; "" where it is absent.
func (s *Store) setAside(p string) (string, error) {
	trash, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return "", err
	}
	err = os.Rename(p, filepath.Join(trash, "layer"))
	if err == nil {
		return trash, nil
	}
	_ = os.Remove(trash) // empty; Open sweeps it
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return "", err
}

// Tree returns the directory that holds the layer's files in overlay's form.
func (s *Store) Tree(diffID digest.Digest) string {
	return filepath.Join(s.dir, name(diffID), treeDir)
}

package layer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// shelf is what lies in a store's directory.
type shelf struct{ dir string }

// ingestPrefix begins the name of a directory that is not a layer: one being
// written, or one being removed.
const ingestPrefix = ".ingest-"

// name is the directory of a layer. The digest must be valid.
func name(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

// digestOf is the inverse of name; false for other names.
func digestOf(name string) (digest.Digest, bool) {
	algorithm, hex, _ := strings.Cut(name, "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return d, blob.Validate(d) == nil
}

func (s shelf) path(d digest.Digest) (string, error) {
	if err := blob.Validate(d); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, name(d)), nil
}

// Info returns what the store knows of a layer. The error is of kind NotFound
// where the layer is absent or not whole.
func (s shelf) Info(diffID digest.Digest) (Info, error) {
	var failed error
	for _, record := range []string{tarRecord, treeRecord, imageRecord} {
		info, err := s.read(diffID, record)
		if err == nil {
			return info, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || failed == nil {
			failed = err
		}
	}
	return Info{}, failed
}

// read reads one of a layer's records.
func (s shelf) read(diffID digest.Digest, record string) (Info, error) {
	p, err := s.path(diffID)
	if err != nil {
		return Info{}, err
	}
	var info Info
	err = statefile.Read(filepath.Join(p, record), &info)
	if err == nil && (info.Version != infoVersion || info.DiffID != diffID) {
		err = fmt.Errorf("record of version %d for %q: %w", info.Version, info.DiffID, statefile.ErrCorrupt)
	}
	if err == nil {
		_, err = os.Lstat(filepath.Join(p, contents[record]))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, statefile.ErrCorrupt):
		return Info{}, fmt.Errorf("layer %s: %w: %w", diffID, err, errs.NotFound)
	case err != nil:
		return Info{}, err
	}
	return info, nil
}

// has reports whether a layer is there in the form of a record.
func (s shelf) has(diffID digest.Digest, record string) bool {
	_, err := s.read(diffID, record)
	return err == nil
}

// Usage returns what a layer takes on disk.
func (s shelf) Usage(diffID digest.Digest) (bytes, inodes int64) {
	for _, record := range []string{treeRecord, tarRecord, imageRecord} {
		info, err := s.read(diffID, record)
		switch {
		case err != nil:
		case record == treeRecord:
			bytes, inodes = bytes+info.Bytes, inodes+info.Inodes+3 // its two directories and its record
		default:
			bytes, inodes = bytes+info.Stored, inodes+4
		}
	}
	return bytes, inodes
}

// Mark adds a stack to what is used, and the layers that it shows files of.
func (s shelf) Mark(used map[digest.Digest]bool, stack []digest.Digest) {
	for _, d := range stack {
		used[d] = true
		for _, below := range s.needs(d) {
			used[below] = true
		}
	}
}

// needs returns the layers that an image shows files of.
func (s shelf) needs(diffID digest.Digest) []digest.Digest {
	info, err := s.read(diffID, imageRecord)
	if err != nil {
		return nil
	}
	return info.Layers
}

// Has reports whether the store holds the whole layer, with what it needs.
func (s shelf) Has(diffID digest.Digest) bool {
	if s.has(diffID, tarRecord) || s.has(diffID, treeRecord) {
		return true
	}
	info, err := s.read(diffID, imageRecord)
	return err == nil && !slices.ContainsFunc(info.Layers, func(d digest.Digest) bool { return !s.has(d, tarRecord) })
}

// Composed reports whether a stack is an EROFS image.
func (s shelf) Composed(stack []digest.Digest) bool {
	return len(stack) == 1 && s.has(stack[0], imageRecord)
}

// Stacked reports whether a stack that Stack or Trees has returned is here, to be
// mounted.
func (s shelf) Stacked(stack []digest.Digest) bool {
	if s.Composed(stack) {
		return s.Has(stack[0])
	}
	return !slices.ContainsFunc(stack, func(d digest.Digest) bool { return !s.has(d, treeRecord) })
}

// Made returns when a layer was put here, whole or not.
func (s shelf) Made(diffID digest.Digest) (time.Time, error) {
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
func (s shelf) List() ([]digest.Digest, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []digest.Digest
	for _, n := range names {
		if d, ok := digestOf(n.Name()); ok {
			all = append(all, d)
		}
	}
	return all, nil
}

// setAside makes a layer one no longer, and returns where it is then; "" where it
// is gone. It makes no directory, and works on a full disk.
func (s shelf) setAside(p string) (string, error) {
	trash := filepath.Join(s.dir, ingestPrefix+rand.Text())
	err := os.Rename(p, trash)
	switch {
	case err == nil:
		return trash, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT): // not even for the name
		return "", errors.Join(unrecord(p), os.RemoveAll(p))
	}
	return "", err
}

// unrecord makes a layer one that is not whole.
func unrecord(p string) error {
	for record := range contents {
		if err := os.Remove(filepath.Join(p, record)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Tree returns the directory that holds the layer's files in overlay's form.
func (s shelf) Tree(diffID digest.Digest) string {
	return filepath.Join(s.dir, name(diffID), treeDir)
}

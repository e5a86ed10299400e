package artifact

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	infoVersion  = 1
	infoFile     = "artifact.json"
	filesDir     = "fs"
	ingestPrefix = ".ingest-"
)

// Info describes a tree.
type Info struct {
	Version int           `json:"version"`
	ID      digest.Digest `json:"id"`     // of the artifact
	Bytes   int64         `json:"bytes"`  // of what is unpacked: links take none
	Inodes  int64         `json:"inodes"` // likewise, and of directories
	// Unpacked is the digest of what archives have left, "" where there are none.
	Unpacked digest.Digest `json:"unpacked,omitempty"`
}

// Store is a directory of trees.
type Store struct {
	dir    string
	blobs  *blob.Store
	limits entry.Limits
	locks  keylock.Locks // artifacts and blobs, while they come here
}

// Open returns the store at dir, which it makes if need be, and removes what
// unfinished work has left. Archives are held to limits.
func Open(dir string, blobs *blob.Store, limits entry.Limits) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make artifact store: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ingestPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
				return nil, fmt.Errorf("sweep artifacts: %w", err)
			}
		}
	}
	return &Store{dir: dir, blobs: blobs, limits: limits}, nil
}

// build makes a tree of the artifact id and returns its name. The blobs of files
// that are not archives are in the blob store.
func (s *Store) build(ctx context.Context, id digest.Digest, files []File, src Source) (string, error) {
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	info := Info{Version: infoVersion, ID: id, Inodes: 3}
	if err := s.fill(ctx, filepath.Join(temp, filesDir), files, src, &info); err != nil {
		return "", err
	}
	if err := syncfs(temp); err != nil {
		return "", err
	}
	if err := statefile.WriteDurable(filepath.Join(temp, infoFile), info); err != nil {
		return "", err
	}
	var generation [4]byte
	_, _ = rand.Read(generation[:]) // never fails
	name := id.Algorithm().String() + "-" + id.Encoded() + "." + hex.EncodeToString(generation[:])
	if err := os.Rename(temp, filepath.Join(s.dir, name)); err != nil {
		return "", err
	}
	return name, statefile.SyncDir(s.dir)
}

// fill unpacks the archives first: what they have in a file's place is noticed
// when the file is linked.
func (s *Store) fill(ctx context.Context, dir string, files []File, src Source, info *Info) error {
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return err
	}
	unpacked := false
	for _, f := range files {
		if !f.Archive() {
			continue
		}
		bytes, inodes, err := s.extract(ctx, dir, f, src)
		if err != nil {
			return fmt.Errorf("unpack blob %s of type %.100q: %w", f.Blob.Digest, f.Blob.MediaType, err)
		}
		info.Bytes, info.Inodes = info.Bytes+bytes, info.Inodes+inodes
		unpacked = true
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if unpacked {
		if info.Unpacked, err = sum(ctx, root, nil); err != nil {
			return err
		}
	}
	for _, f := range files {
		if !f.Archive() {
			if err := s.link(root, f, info); err != nil {
				return fmt.Errorf("file %.200q: %w", f.Name, err)
			}
		}
	}
	return nil
}

func (s *Store) extract(ctx context.Context, dir string, f File, src Source) (bytes, inodes int64, err error) {
	r, err := src.Archive(ctx, f.Blob)
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	bytes, inodes, err = directory.Extract(ctx, dir, s.limits, r)
	return bytes, inodes, room.Explain(err, dir, 0)
}

// link makes the hard link of a file.
func (s *Store) link(root *os.Root, f File, info *Info) error {
	if err := s.makeDirs(root, path.Dir(f.Name), info); err != nil {
		return err
	}
	dir, err := root.Open(path.Dir(f.Name))
	if err != nil {
		return err
	}
	defer dir.Close()
	err = s.blobs.Link(f.Blob.Digest, int(dir.Fd()), path.Base(f.Name))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("an archive of the artifact has it too: %w", errs.Invalid)
	}
	return err
}

// makeDirs makes directories that everybody may look into, whatever the umask. A
// link in the place of one is not followed.
func (s *Store) makeDirs(root *os.Root, dir string, info *Info) error {
	if dir == "." {
		return nil
	}
	if err := s.makeDirs(root, path.Dir(dir), info); err != nil {
		return err
	}
	st, err := root.Lstat(dir)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("an archive of the artifact has %.200q as something else: %w", dir, errs.Invalid)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info.Inodes++
	return errors.Join(root.Mkdir(dir, 0o755), root.Chmod(dir, 0o755))
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// Info returns what is known of a tree, which is whole then; else the error is of
// kind NotFound.
func (s *Store) Info(name string) (Info, error) {
	var info Info
	id, ok := ID(name)
	if !ok {
		return info, fmt.Errorf("artifact tree %.200q: %w", name, errs.NotFound)
	}
	err := statefile.Read(filepath.Join(s.dir, name, infoFile), &info)
	if err == nil && (info.Version != infoVersion || info.ID != id) {
		err = fmt.Errorf("record of version %d for %q: %w", info.Version, info.ID, statefile.ErrCorrupt)
	}
	if err != nil {
		return Info{}, fmt.Errorf("artifact tree %s: %w: %w", name, err, errs.NotFound)
	}
	return info, nil
}

// ID returns the artifact that a tree is of.
func ID(name string) (digest.Digest, bool) {
	base, _, ok := strings.Cut(name, ".")
	algorithm, hex, _ := strings.Cut(base, "-")
	id := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return id, ok && !strings.Contains(name, "/") && blob.Validate(id) == nil
}

// Tree is the directory to show to containers.
func (s *Store) Tree(name string) string { return filepath.Join(s.dir, name, filesDir) }

// List returns the names of all trees, damaged ones included, and when they were
// made.
func (s *Store) List() (map[string]time.Time, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	all := map[string]time.Time{}
	for _, e := range entries {
		if _, ok := ID(e.Name()); !ok {
			continue
		}
		if info, err := e.Info(); err == nil { // else removed meanwhile
			all[e.Name()] = info.ModTime()
		}
	}
	return all, nil
}

// Discard takes a tree away by name, quickly, and returns the function that
// removes its files. The caller knows that nothing mounts it.
func (s *Store) Discard(name string) (rest func() error, err error) {
	trash, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return nil, err
	}
	err = os.Rename(filepath.Join(s.dir, name), filepath.Join(trash, "tree"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, os.Remove(trash))
	}
	return func() error { return os.RemoveAll(trash) }, nil
}

// Damage makes a tree one that is not whole, so that the next pull makes another.
func (s *Store) Damage(name string) error {
	err := os.Remove(filepath.Join(s.dir, name, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

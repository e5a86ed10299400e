// Package volume shows containers what images and artifacts hold, as volumes that
// nobody writes to.
//
// A volume is one mount, at <mounts>/<container>/<n>: the root of an image's
// layers, the tree of an artifact, or what a sub path names there. The record
// <records>/<container>.json lists a container's volumes; it is written before the
// mounts are made and removed after them, and what it holds must stay meanwhile,
// whatever becomes of the image. It outlives a reboot, the mounts do not; Mount
// makes them again.
//
// Sub paths are kubelet's, but the links that they pass are the image's: they are
// opened by openat2 and do not leave the image. Methods are safe for concurrent
// use; there are no goroutines.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/idmap"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/mountpoint"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	recordVersion = 1
	recordSuffix  = ".json"
	viewPrefix    = ".view-" // of a whole image, mounted while a part of it is taken
)

// Volume is one mount of a container.
type Volume struct {
	// Path is where the container sees it, for messages.
	Path  string        `json:"path"`
	Image digest.Digest `json:"image"` // or artifact
	// Layers are an image's, the lowest first; Tree is an artifact's.
	Layers  []digest.Digest `json:"layers,omitempty"`
	Tree    string          `json:"tree,omitempty"`
	SubPath string          `json:"subPath,omitempty"`
}

// Record is all volumes of one container.
type Record struct {
	Version  int            `json:"version"`
	ID       string         `json:"id"` // the container's
	Mappings idmap.Mappings `json:"mappings"`
	// SELinuxLabel is what every file shows as, or "".
	SELinuxLabel string   `json:"selinuxLabel,omitempty"`
	Volumes      []Volume `json:"volumes"`
	// Blobs are those that artifacts are made of.
	Blobs []digest.Digest `json:"blobs,omitempty"`
}

// Content is what volumes show.
type Content interface {
	// View mounts the layers of v, or its tree, at target, read-only and as the
	// container of r sees them. The container's id names the call.
	View(ctx context.Context, r Record, v Volume, target string) error
	// Tree is the directory of an artifact's tree.
	Tree(name string) string
}

// Store is all volumes of a node.
type Store struct {
	records, mounts string
	content         Content
	locks           keylock.Locks // by container
}

// Open returns the volumes and removes what a crash has left half-made.
func Open(records, mounts string, c Content) (*Store, error) {
	s := &Store{records: records, mounts: mounts, content: c}
	for _, dir := range []string{records, mounts} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make volumes: %w", err)
		}
	}
	views, err := filepath.Glob(filepath.Join(mounts, viewPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, v := range views {
		dismiss(v)
	}
	if err := statefile.Sweep(records); err != nil {
		return nil, fmt.Errorf("sweep volumes: %w", err)
	}
	return s, nil
}

func (s *Store) recordPath(id string) string { return filepath.Join(s.records, id+recordSuffix) }
func (s *Store) home(id string) string       { return filepath.Join(s.mounts, id) }
func (s *Store) target(id string, n int) string {
	return filepath.Join(s.home(id), strconv.Itoa(n))
}

// Mounted is a volume and the path that it is mounted at.
type Mounted struct {
	Volume
	HostPath string
}

// Mount mounts the volumes of r and returns them, in order. Where one
// fails, none is left. A container that has a record gets what that says, so it is
// idempotent, also after a reboot.
func (s *Store) Mount(ctx context.Context, r Record) ([]Mounted, error) {
	if err := statefile.CheckName("volumes of", r.ID); err != nil {
		return nil, err
	}
	unlock, err := s.locks.Lock(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, err := s.read(r.ID)
	fresh := err != nil
	if fresh {
		r.Version = recordVersion
		if err := statefile.Write(s.recordPath(r.ID), r); err != nil {
			return nil, err
		}
	} else {
		r = old
	}
	all, err := s.mountAll(ctx, r)
	if err != nil && fresh {
		return nil, errors.Join(err, s.remove(r.ID))
	}
	return all, err
}

func (s *Store) mountAll(ctx context.Context, r Record) ([]Mounted, error) {
	if err := os.Mkdir(s.home(r.ID), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	var all []Mounted
	for n, v := range r.Volumes {
		err := ctx.Err()
		target := s.target(r.ID, n)
		if err == nil && !mountpoint.Is(target) {
			err = s.mount(ctx, r, v, target)
		}
		if err != nil {
			return nil, fmt.Errorf("%w at %s: %w", ErrMount, v.Path, err)
		}
		all = append(all, Mounted{Volume: v, HostPath: target})
	}
	return all, nil
}

// ErrMount says that a volume could not be mounted.
var ErrMount = errors.New("image volume")

// mount mounts one volume at target.
func (s *Store) mount(ctx context.Context, r Record, v Volume, target string) error {
	if v.Tree != "" && r.SELinuxLabel == "" {
		return attach(s.content.Tree(v.Tree), v.SubPath, r.Mappings, target)
	}
	view := filepath.Join(s.mounts, viewPrefix+r.ID)
	defer dismiss(view)
	if err := os.Mkdir(view, 0o700); err != nil {
		return err
	}
	if err := s.content.View(ctx, r, v, view); err != nil {
		return err
	}
	return attach(view, v.SubPath, idmap.Mappings{}, target) // mapped already
}

// dismiss takes away a view; what cannot be, Open sweeps.
func dismiss(view string) {
	_ = unix.Unmount(view, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	_ = os.Remove(view)
}

// Unmount unmounts all volumes of a container and forgets them. It is idempotent.
func (s *Store) Unmount(ctx context.Context, id string) error {
	if err := statefile.CheckName("volumes of", id); err != nil {
		return err
	}
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return s.remove(id)
}

func (s *Store) remove(id string) error {
	names, err := os.ReadDir(s.home(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range names {
		p := filepath.Join(s.home(id), n.Name())
		if mountpoint.Is(p) {
			if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("unmount image volume %s: %w", p, err)
			}
		}
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	for _, p := range []string{s.home(id), s.recordPath(id)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) read(id string) (Record, error) {
	var r Record
	err := statefile.Read(s.recordPath(id), &r)
	if err == nil && (r.Version != recordVersion || r.ID != id) {
		err = fmt.Errorf("record of version %d for %q: %w", r.Version, r.ID, statefile.ErrCorrupt)
	}
	return r, err
}

// List returns all records. damaged lists containers whose record cannot be read,
// or that have mounts and no record.
func (s *Store) List() (all []Record, damaged []string, err error) {
	homes, err := os.ReadDir(s.mounts) // first: a record is there before its mounts
	if err != nil {
		return nil, nil, err
	}
	names, err := os.ReadDir(s.records)
	if err != nil {
		return nil, nil, err
	}
	known := map[string]bool{}
	for _, n := range names {
		id, ok := strings.CutSuffix(n.Name(), recordSuffix)
		if !ok || statefile.Leftover(n.Name()) {
			continue
		}
		known[id] = true
		r, err := s.read(id)
		switch {
		case err == nil:
			all = append(all, r)
		case !errors.Is(err, fs.ErrNotExist): // else removed meanwhile
			damaged = append(damaged, id)
		}
	}
	for _, n := range homes {
		id := n.Name()
		if id[0] == '.' || known[id] {
			continue
		}
		if _, err := os.Lstat(s.home(id)); err == nil { // else removed meanwhile
			damaged = append(damaged, id)
		}
	}
	return all, damaged, nil
}

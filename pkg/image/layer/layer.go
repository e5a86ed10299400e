// Package layer keeps image layers and stacks them into what a root file system is
// mounted from.
//
// A layer is brought here alone, without the layers below it, so that layers come in
// parallel and are shared by every image that has them. It lives in
// <dir>/<algorithm>-<diffID> in one of two forms, or in both:
//
//	fs/ layer.json            a directory in overlay's own form
//	tar spill index tar.json  the tar stream as it is, for EROFS
//
// The record, written last, says that all else is whole and on disk. Stack joins the
// layers of one image in what lies beside them as if it were a layer: small
// directories that settle what a directory cannot know alone, or, for tar streams,
// one EROFS image (image, image.json), whatever the number of layers. Where an image
// has layers of both forms, or EROFS cannot have it, its tar streams are unpacked
// into directories too.
//
// What is made is summed up, so that Verify can tell later whether it is what it
// was; .unclean/ marks what was written since the last clean stop (package suspect);
// .damaged-… are layers that Quarantine has set aside.
//
// An unpacking that is interrupted goes on in the next process: see ingest.
//
// A lock by layer is held while a layer is made or an image is mounted; composing,
// which takes memory, waits for its turn under it. Nothing else nests.
package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/directory"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/erofs"
	"github.com/berth-run/berth/pkg/image/suspect"
	"github.com/berth-run/berth/pkg/internal/keylock"
)

const (
	infoVersion = 1
	treeDir     = "fs"
	tarFile     = "tar"
	spillFile   = "spill"
	indexFile   = "index"
	imageFile   = "image"
)

// The records of the forms, each written when all else of it is on disk.
const (
	treeRecord  = "layer.json"
	tarRecord   = "tar.json"
	imageRecord = "image.json"
)

// contents is what cannot be missing beside each record.
var contents = map[string]string{treeRecord: treeDir, tarRecord: tarFile, imageRecord: imageFile}

// Backend is a form in which new layers are kept.
type Backend string

// The backends. Layers that are here in the other form go on working.
const (
	Auto      Backend = "auto"      // EROFS where the kernel has it
	EROFS     Backend = "erofs"     // tar streams, mounted as EROFS
	Directory Backend = "directory" // directories, stacked by overlay
)

// Options configures a Store. The zero value keeps directories.
type Options struct {
	Limits  entry.Limits
	Backend Backend
	// Mounts is where EROFS images are mounted, below <state>; without it there
	// is no EROFS.
	Mounts string
	// Verity has the file system protect tar streams and images by fs-verity,
	// where it can.
	Verity bool
}

// Store is a directory of layers. Its methods are safe for concurrent use.
type Store struct {
	shelf
	mounts    mounts
	options   Options
	erofs     bool  // new layers are kept as tar streams
	without   error // why there is no EROFS
	locks     keylock.Locks
	composing sync.Mutex
	sync      groupSync
	marks     *suspect.Marks
}

// Info describes a layer.
type Info struct {
	Version int           `json:"version"`
	DiffID  digest.Digest `json:"diffID"`
	directory.Made
	// Tar is the size of the tar stream, and Stored what is on disk with it;
	// zero for a directory.
	Tar    int64 `json:"tar,omitempty"`
	Stored int64 `json:"stored,omitempty"`
	// Layers and Devices are those of a composed image, and Sum its digest.
	Layers  []digest.Digest `json:"layers,omitempty"`
	Devices []erofs.Device  `json:"devices,omitempty"`
	Sum     digest.Digest   `json:"sum,omitempty"`
}

// Open returns the store at dir, which it makes if need be, and removes what
// unfinished work has left and nobody can go on from.
func Open(dir string, o Options) (*Store, error) {
	o.Limits = o.Limits.WithDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make layer store: %w", err)
	}
	s := &Store{shelf: shelf{dir}, mounts: mounts{o.Mounts, shelf{dir}}, options: o}
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
	if err := s.mounts.sweep(); err != nil {
		return nil, fmt.Errorf("sweep mounts of images: %w", err)
	}
	if s.marks, err = suspect.Open(filepath.Join(dir, marksDir)); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	if o.Backend == Directory || o.Backend == "" {
		return s, nil
	}
	s.without = s.mounts.probe()
	s.erofs = s.without == nil
	return s, nil
}

// Close says that nothing more will be written: after it, layers are no suspects.
// It takes the mounts of images away that are not used; none where used is nil.
func (s *Store) Close(used map[digest.Digest]bool) error {
	unmounted := s.mounts.each(func(id digest.Digest) bool { return used != nil && !used[id] })
	if err := s.sync.do(s.dir); err != nil {
		return errors.Join(unmounted, err)
	}
	return errors.Join(unmounted, s.marks.Clear())
}

// Backend returns the form in which new layers are kept, and, where it is not the
// one that was asked for, why.
func (s *Store) Backend() (Backend, error) {
	if s.erofs {
		return EROFS, nil
	}
	return Directory, s.without
}

// Discard takes a layer away by name, quickly, and returns the function that
// removes its files, never nil, to be called once. The caller knows that no root file system
// is made of it. That it is absent is no error.
func (s *Store) Discard(ctx context.Context, diffID digest.Digest) (rest func() error, err error) {
	p, err := s.path(diffID)
	if err != nil {
		return none, err
	}
	unlock, err := s.locks.Lock(ctx, name(diffID))
	if err != nil {
		return none, err
	}
	defer unlock()
	aside, err := s.setAside(p)
	if err == nil {
		err = s.marks.Forget(name(diffID))
	}
	if err != nil {
		return none, err
	}
	mount, err := s.mounts.drop(diffID)
	if err != nil {
		return none, err
	}
	return func() error {
		if mount >= 0 {
			_ = unix.Close(mount) // the last reference: here the mount ends
		}
		if aside == "" {
			return nil
		}
		return os.RemoveAll(aside)
	}, nil
}

// none is nothing left to do.
func none() error { return nil }

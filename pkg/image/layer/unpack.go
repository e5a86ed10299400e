package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// maxTail bounds what may follow the end of a tar stream: padding.
const maxTail = 64 << 20

// Mark is a position in a layer's tar stream from which the stream can be opened
// again, by another process too. The zero Mark is the beginning.
type Mark struct {
	Offset int64  `json:"offset"` // in the tar stream, in bytes
	State  []byte `json:"state"`  // what who made the stream needs
}

// Stream is a layer's tar stream, uncompressed.
type Stream interface {
	io.ReadCloser
	// Mark returns the last position, at most as far as what has been read, from
	// which the stream can be opened again; false where it has none.
	Mark() (Mark, bool)
}

// Unpack makes the layer diffID from its tar stream and returns once it is whole,
// verified and on disk. A layer that is there already is left alone. open is
// called only if the stream is needed, with where to begin; two callers for one
// layer share the work of the first.
func (s *Store) Unpack(ctx context.Context, diffID digest.Digest, open func(from Mark) (Stream, error)) (Info, error) {
	p, err := s.path(diffID)
	if err != nil {
		return Info{}, err
	}
	unlock, err := s.locks.Lock(ctx, name(diffID))
	if err != nil {
		return Info{}, err
	}
	defer unlock()
	if info, err := s.Info(diffID); err == nil {
		return info, nil
	}
	r, err := open(Mark{})
	if err != nil {
		return Info{}, err
	}
	defer r.Close()
	temp, err := os.MkdirTemp(s.dir, ingestPrefix)
	if err != nil {
		return Info{}, err
	}
	defer os.RemoveAll(temp) // renamed away where it succeeds
	info, err := s.unpackInto(ctx, temp, diffID, r)
	if err != nil {
		return Info{}, fmt.Errorf("unpack layer %s: %w", diffID, Full(err))
	}
	return info, s.commit(temp, p, info)
}

// Full marks the errors of a disk that has no room.
func Full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", err, errs.Exhausted)
	}
	return err
}

// commit puts a tree on disk, then says that it is whole, then gives it its
// name.
func (s *Store) commit(temp, p string, info Info) error {
	if err := s.sync.do(s.dir); err != nil {
		return Full(err)
	}
	if err := statefile.WriteDurable(filepath.Join(temp, infoFile), info); err != nil {
		if errors.Is(err, statefile.ErrTooLarge) {
			return fmt.Errorf("layer leaves too much to the layers below: %w: %w", err, errs.Invalid)
		}
		return Full(err)
	}
	if _, err := os.Lstat(p); err == nil { // a damaged layer of that name
		aside, err := s.setAside(p)
		if err != nil {
			return err
		}
		defer os.RemoveAll(aside)
	}
	if err := os.Rename(temp, p); err != nil {
		return err
	}
	return statefile.SyncDir(s.dir)
}

func (s *Store) unpackInto(ctx context.Context, temp string, diffID digest.Digest, r io.Reader) (Info, error) {
	dir := filepath.Join(temp, treeDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Info{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return Info{}, err
	}
	t, err := openTree(dir, s.limits)
	if err != nil {
		return Info{}, err
	}
	defer t.close()
	v := blob.NewVerifier(blob.ContextReader(ctx, r), diffID, -1)
	u := unpacker{tree: t}
	if err := u.run(v); err != nil {
		return Info{}, err
	}
	if err := v.Drain(maxTail); err != nil {
		return Info{}, err
	}
	info := Info{Version: infoVersion, DiffID: diffID, Bytes: t.budget.Bytes, Inodes: t.budget.Entries}
	info.Implied, info.Links = t.open()
	info.Whiteouts = slices.Sorted(maps.Keys(t.whiteouts))
	return info, nil
}

// unpacker applies one stream.
type unpacker struct {
	tree *tree
	dirs []dirTime
}

// dirTime is the time of a directory, to be set when nothing more is put into
// it.
type dirTime struct {
	path string
	ino  uint64
	time time.Time
}

func (u *unpacker) run(r io.Reader) error {
	stream := tar.NewReader(r)
	for {
		h, err := stream.Next()
		if err == io.EOF {
			return errors.Join(u.tree.dropTargets(), u.finish())
		}
		if err != nil {
			return fmt.Errorf("read tar stream: %w", entry.KindOf(err))
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := u.tree.budget.Count(h); err != nil {
			return err
		}
		if err := u.tree.apply(h, stream); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeDir {
			if err := u.note(h); err != nil {
				return err
			}
		}
	}
}

// note remembers a directory's time.
func (u *unpacker) note(h *tar.Header) error {
	p, err := entry.Name(h.Name)
	if err != nil {
		return err
	}
	fd, err := openBelow(u.tree.root, p, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil // a whiteout's name with a slash: nothing was made
	}
	defer unix.Close(fd)
	st, err := statAt(fd, "")
	if err != nil {
		return err
	}
	u.dirs = append(u.dirs, dirTime{path: p, ino: st.Ino, time: h.ModTime})
	return u.tree.budget.Note(p)
}

// finish sets the times of directories, the last made first.
func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.dirs) {
		fd, err := openBelow(u.tree.root, d.path, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			continue // replaced by a later entry
		}
		st, err := statAt(fd, "")
		if err == nil && st.Ino == d.ino {
			ts := timespec(d.time)
			err = unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), []unix.Timespec{ts, ts}, 0)
		}
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("time of %.200q: %w", d.path, err)
		}
	}
	return nil
}

// open returns what the tree leaves open: the implied directories that are still
// there, and the links into layers below.
func (t *tree) open() (implied []string, links []Link) {
	for ino, p := range t.implied {
		if st, err := statAt(t.root, p); err == nil && st.Ino == ino {
			implied = append(implied, p)
		}
	}
	for p, target := range t.links {
		links = append(links, Link{Path: p, Target: target})
	}
	slices.Sort(implied)
	slices.SortFunc(links, func(a, b Link) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return implied, links
}

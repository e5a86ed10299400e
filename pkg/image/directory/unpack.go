// Package directory keeps layers in overlay's own form: directories in which
// whiteouts are character devices 0/0 and opaque directories carry
// trusted.overlay.opaque.
//
// Unpack applies a layer's stream alone, without the layers below it. What a tree
// cannot know alone (the owner of a directory that the stream implies but does not
// list, the target of a hard link into a layer below) it returns; Settle settles
// that for one stack in a tree of its own, to be mounted above.
//
// Streams are attackers' data. Every path is opened below the tree's descriptor by
// openat2 with RESOLVE_IN_ROOT, sizes and counts are bounded, and only attributes
// on a short list are set.
package directory

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

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/treesum"
	"github.com/berth-run/berth/pkg/internal/procfd"
	"github.com/berth-run/berth/pkg/internal/room"
)

// Link is a hard link whose target lies in a layer below.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// Made is what Unpack has made, and what it leaves to Settle.
type Made struct {
	Bytes  int64 `json:"bytes"`  // of file content
	Inodes int64 `json:"inodes"` // that it takes
	// Total is what the tree adds up to; nil where an earlier Berth has unpacked it.
	Total *treesum.Sum `json:"total,omitempty"`
	// Implied lists the directories that the stream has not listed: their
	// owner and mode are those of the layer below. "." is the root.
	Implied []string `json:"implied,omitempty"`
	// Whiteouts lists the directories that hold whiteouts: overlay shows these
	// where it does not merge the directory with one below.
	Whiteouts []string `json:"whiteouts,omitempty"`
	// Links lists the hard links that only the layers below can settle.
	Links []Link `json:"links,omitempty"`
}

// Unpack makes the directory dir and applies the tar stream r to it. It reads to
// the archive's end, not to r's.
func Unpack(ctx context.Context, dir string, r io.Reader, limits entry.Limits) (Made, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Made{}, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return Made{}, err
	}
	t, err := openTree(dir, limits)
	if err != nil {
		return Made{}, err
	}
	defer t.close()
	u := unpacker{tree: t}
	if err := u.run(r); err != nil {
		return Made{}, err
	}
	made := Made{Bytes: t.budget.Bytes, Inodes: t.budget.Entries}
	if made.Total, err = t.total(ctx); err != nil {
		return Made{}, err
	}
	made.Implied, made.Links = t.open()
	made.Whiteouts = slices.Sorted(maps.Keys(t.whiteouts))
	return made, nil
}

// total returns what the tree adds up to. Its contents have been summed while they
// were written; only where something of them has been removed again, they are read.
func (t *tree) total(ctx context.Context) (*treesum.Sum, error) {
	if t.removed {
		sum, err := treesum.Of(ctx, t.dir)
		return &sum, err
	}
	names, err := treesum.Names(ctx, t.dir)
	sum := t.sum
	sum.Names = names
	return &sum, err
}

// minRoom is what making a name or a directory may need: a block.
const minRoom = 4 << 10

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
			return fmt.Errorf("entry %.200q: %w", h.Name, room.Explain(err, filepath.Join(u.tree.dir, h.Name), max(h.Size, minRoom)))
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
			err = unix.UtimesNanoAt(unix.AT_FDCWD, procfd.Path(fd), []unix.Timespec{ts, ts}, 0)
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

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

const (
	maxWalked   = 100_000          // files of one Usage call
	maxDepth    = 100              // of its directories, each of which is open meanwhile
	usageMaxAge = 10 * time.Second // for which an answer is good
)

// Usage is what a writable directory takes.
type Usage struct {
	Bytes, Inodes uint64
}

// usageCache keeps answers, so that polling does not walk.
type usageCache struct {
	mu      sync.Mutex
	answers map[string]usageAnswer
}

type usageAnswer struct {
	usage Usage
	at    time.Time
}

func (c *usageCache) get(id string) (Usage, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers[id]
	return a.usage, ok && time.Since(a.at) < usageMaxAge
}

func (c *usageCache) put(id string, u Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = map[string]usageAnswer{}
	}
	c.answers[id] = usageAnswer{usage: u, at: time.Now()}
}

func (c *usageCache) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, id)
}

// Usage returns what the container has written: an answer of at most ten
// seconds ago, and a lower bound where there are more than 100,000 files or
// directories are more than 100 deep.
func (r *Roots) Usage(ctx context.Context, id string) (Usage, error) {
	if err := statefile.CheckName(idName, id); err != nil {
		return Usage{}, err
	}
	if u, ok := r.usage.get(id); ok {
		return u, nil
	}
	upper, err := unix.Open(filepath.Join(r.writable, id, upperDir), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Usage{}, fmt.Errorf("usage of root file system %s: %w", id, absent(err))
	}
	defer unix.Close(upper)
	w := walk{}
	if err := w.dir(ctx, upper, "."); err != nil {
		return Usage{}, fmt.Errorf("usage of root file system %s: %w", id, err)
	}
	r.usage.put(id, w.usage)
	return w.usage, nil
}

// walk adds up a directory that a container may change meanwhile: each name is
// opened in the directory that it was read from, and no link is followed.
type walk struct {
	usage Usage
	depth int
}

// dir walks the directory name of parent.
func (w *walk) dir(ctx context.Context, parent int, name string) error {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(err)
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	w.depth++
	defer func() { w.depth-- }()
	for w.usage.Inodes < maxWalked {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := d.Readdirnames(1024)
		for _, n := range names {
			if err := w.entry(ctx, fd, n); err != nil {
				return err
			}
		}
		if err != nil || len(names) == 0 {
			return nil
		}
	}
	return nil
}

func (w *walk) entry(ctx context.Context, parent int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil // removed meanwhile
	}
	w.usage.Inodes++
	w.usage.Bytes += uint64(st.Blocks) * 512
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || w.usage.Inodes >= maxWalked || w.depth >= maxDepth {
		return nil
	}
	return w.dir(ctx, parent, name)
}

// gone drops the error of a directory that has been removed or replaced.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// absent gives the error of a missing file its kind.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errs.NotFound)
	}
	return err
}

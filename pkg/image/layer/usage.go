package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	maxWalked   = 100_000          // files of one Usage call
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
// seconds ago, and a lower bound where there are more than 100,000 files.
func (r *Roots) Usage(id string) (Usage, error) {
	if err := checkID(id); err != nil {
		return Usage{}, err
	}
	if u, ok := r.usage.get(id); ok {
		return u, nil
	}
	root, err := os.OpenRoot(filepath.Join(r.writable, id, upperDir))
	if err != nil {
		return Usage{}, fmt.Errorf("usage of root file system %s: %w", id, absent(err))
	}
	defer root.Close()
	var u Usage
	if err := walk(root, ".", &u); err != nil {
		return Usage{}, fmt.Errorf("usage of root file system %s: %w", id, err)
	}
	r.usage.put(id, u)
	return u, nil
}

// walk adds up dir, opened below root: the container may change it meanwhile.
func walk(root *os.Root, dir string, u *Usage) error {
	d, err := root.Open(dir)
	if err != nil {
		return gone(err)
	}
	defer d.Close()
	for u.Inodes < maxWalked {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			var st unix.Stat_t
			if unix.Fstatat(int(d.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue // removed meanwhile
			}
			u.Inodes++
			u.Bytes += uint64(st.Blocks) * 512
			if isDir(st) && u.Inodes < maxWalked {
				if err := walk(root, filepath.Join(dir, e.Name()), u); err != nil {
					return err
				}
			}
		}
		if err != nil || len(entries) == 0 {
			return nil
		}
	}
	return nil
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

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
	maxWalked   = 100_000          // files of one walk
	maxDepth    = 100              // of its directories, each of which is open meanwhile
	usageMaxAge = 10 * time.Second // for which an answer is good
	// believedFor is how long what the file system has counted is believed of a
	// container that could deceive it, and slack by how much a walk may differ.
	believedFor = 10 * time.Minute
	slack       = 1 << 20
)

// Usage is what a writable directory takes.
type Usage struct {
	Bytes, Inodes uint64
}

// usageCache keeps answers, so that polling asks nobody.
type usageCache struct {
	mu      sync.Mutex
	answers map[string]usageAnswer
}

type usageAnswer struct {
	usage Usage
	at    time.Time
	// looked is when a walk has last said the same as the file system; deceived tells
	// that one has not.
	looked   time.Time
	deceived bool
}

func (c *usageCache) get(id string) usageAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[id]
}

func (c *usageCache) put(id string, a usageAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = map[string]usageAnswer{}
	}
	c.answers[id] = a
}

func (c *usageCache) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, id)
}

// Usage returns what the container has written: an answer of at most ten seconds
// ago. It is the file system's own count where that counts by project. Else the
// directory is walked, and the answer is a lower bound where there are more than
// 100,000 files or directories are more than 100 deep.
//
// A container without a user namespace may take its files out of its project. It is
// walked every ten minutes for that, and always once it has.
func (r *Roots) Usage(ctx context.Context, id string) (Usage, error) {
	if err := statefile.CheckName(idName, id); err != nil {
		return Usage{}, err
	}
	a := r.usage.get(id)
	if time.Since(a.at) < usageMaxAge {
		return a.usage, nil
	}
	a, err := r.measure(ctx, id, a)
	if err != nil {
		return Usage{}, fmt.Errorf("usage of root file system %s: %w", id, err)
	}
	a.at = time.Now()
	r.usage.put(id, a)
	return a.usage, nil
}

// measure returns the answer that follows a.
func (r *Roots) measure(ctx context.Context, id string, a usageAnswer) (usageAnswer, error) {
	home := filepath.Join(r.writable, id)
	counted, ok := r.projects.usage(home)
	believed := ok && !a.deceived
	if believed && (time.Since(a.looked) < believedFor || r.honest(id)) {
		a.usage = counted
		return a, nil
	}
	walked, err := r.walk(ctx, id)
	if err != nil && believed && ctx.Err() != nil {
		a.usage = counted // it is looked at when there is time
		return a, nil
	}
	a.usage = walked
	if err != nil || !believed {
		return a, err
	}
	again, _ := r.projects.usage(home) // it may have grown meanwhile
	a.looked, a.deceived = time.Now(), walked.Bytes > max(counted.Bytes, again.Bytes)+slack
	if !a.deceived {
		a.usage = counted
	}
	return a, nil
}

// honest tells whether the kernel lets a container change no project: it has a user
// namespace of its own.
func (r *Roots) honest(id string) bool {
	root, err := r.record(id)
	return err == nil && !root.mappings().Empty()
}

// walk adds up what is in the container's upper directory.
func (r *Roots) walk(ctx context.Context, id string) (Usage, error) {
	upper, err := unix.Open(filepath.Join(r.writable, id, upperDir), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Usage{}, absent(err)
	}
	defer unix.Close(upper)
	w := walk{}
	err = w.dir(ctx, upper, ".")
	return w.usage, err
}

// walk adds up a directory that a container may change meanwhile: each name is
// opened in the directory that it was read from, and no link is followed.
type walk struct {
	usage  Usage
	depth  int
	names  int             // so far
	linked map[uint64]bool // inodes with several names, each of which counts once
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
	for w.names < maxWalked {
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
	w.names++
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if w.linked[st.Ino] {
			return nil
		}
		if w.linked == nil {
			w.linked = map[uint64]bool{}
		}
		w.linked[st.Ino] = true
	}
	w.usage.Inodes++
	w.usage.Bytes += uint64(st.Blocks) * 512
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || w.names >= maxWalked || w.depth >= maxDepth {
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

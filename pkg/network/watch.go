package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"
)

const (
	// settle is how long a directory must be quiet before it is read: editors
	// and installers write, rename and remove in bursts.
	settle = 100 * time.Millisecond
	// recheck bounds how long a change may go unseen where the kernel's
	// notification was lost or the directory cannot be watched.
	recheck = 30 * time.Second
)

// Run follows ConfDir until ctx ends, and returns nil then. With a built-in
// network it only waits.
func (s *Service) Run(ctx context.Context) error {
	if s.builtin.Load() != nil {
		<-ctx.Done()
		return nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.opts.ConfDir, err)
	}
	defer watcher.Close()
	s.watch(ctx, watcher)
	due := time.NewTimer(0) // what changed before the watch began
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-watcher.Events:
			if s.concerns(e.Name) {
				due.Reset(settle)
			}
		case err := <-watcher.Errors:
			klog.FromContext(ctx).Error(err, "Watching CNI configurations", "dir", s.opts.ConfDir)
			due.Reset(settle)
		case <-due.C:
			s.watch(ctx, watcher)
			s.reloadIfChanged(ctx)
			due.Reset(recheck)
		}
	}
}

// concerns says whether a name is in the directory, the directory itself, or
// one of its parents, which may have just appeared.
func (s *Service) concerns(name string) bool {
	return filepath.Dir(name) == s.opts.ConfDir || strings.HasPrefix(s.opts.ConfDir+"/", name+"/")
}

// watch follows the directory or, while there is none, its nearest parent that
// exists, to see it appear.
func (s *Service) watch(ctx context.Context, w *fsnotify.Watcher) {
	dir, below := s.opts.ConfDir, ""
	for {
		err := w.Add(dir)
		switch {
		case err == nil && below == "":
			return
		case err == nil:
			if _, err := os.Lstat(below); err != nil {
				return
			}
			dir, below = s.opts.ConfDir, "" // it appeared before the watch began
		case errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir):
			dir, below = filepath.Dir(dir), dir
		default:
			klog.FromContext(ctx).Error(err, "Watching CNI configurations", "dir", dir)
			return
		}
	}
}

// reloadIfChanged reads the directory again, and says so only where something
// is different.
func (s *Service) reloadIfChanged(ctx context.Context) {
	next := readConfDir(s.opts.ConfDir, s.opts.MaxConfNum, s.conf.Load())
	if !next.equal(s.conf.Load()) {
		s.reload(ctx)
	}
}

func (c *configuration) equal(d *configuration) bool {
	if len(c.networks) != len(d.networks) || len(c.broken) != len(d.broken) || (c.err == nil) != (d.err == nil) {
		return false
	}
	for i, n := range c.networks {
		if n.file != d.networks[i].file || string(n.list.Bytes) != string(d.networks[i].list.Bytes) {
			return false
		}
	}
	for file, err := range c.broken {
		if other := d.broken[file]; other == nil || other.Error() != err.Error() {
			return false
		}
	}
	return true
}

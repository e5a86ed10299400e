// Package suspect remembers what has been written since the last clean stop, so
// that after a power cut this, and no more, is verified.
//
// A mark is an empty file, <dir>/<boot>/<name>, where boot is the id that the
// kernel gives itself at each start. Add makes it and syncs nothing: who marks
// content syncs it afterwards, with the same syncfs that puts the content on
// disk, so marks cost no write of their own. What this kernel's marks name needs
// no look while this kernel runs, however many daemons have died meanwhile: what
// they wrote is in its memory or on disk. Marks of an earlier kernel are what was
// written before it stopped, and name suspects. Clear, after a last sync, takes
// this kernel's marks away: a clean stop.
//
// Removing marks needs no space on the disk. Methods are safe for concurrent use.
package suspect

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

const bootID = "/proc/sys/kernel/random/boot_id"

// Marks is a directory of marks.
type Marks struct {
	dir  string
	boot string

	mu  sync.Mutex
	old map[string][]string // the marks of earlier kernels, by name
}

// Open reads the marks in dir, which need not exist.
func Open(dir string) (*Marks, error) {
	m := &Marks{dir: dir, boot: rand.Text(), old: map[string][]string{}} // without an id all that was there is suspect
	if data, err := os.ReadFile(bootID); err == nil {
		m.boot = strings.TrimSpace(string(data))
	}
	boots, err := read(dir)
	if err != nil {
		return nil, fmt.Errorf("read marks: %w", err)
	}
	for _, boot := range boots {
		if boot == m.boot {
			continue
		}
		names, err := read(filepath.Join(dir, boot))
		if err != nil {
			return nil, fmt.Errorf("read marks: %w", err)
		}
		for _, n := range names {
			m.old[n] = append(m.old[n], filepath.Join(dir, boot, n))
		}
		if len(names) == 0 {
			_ = os.Remove(filepath.Join(dir, boot)) // one directory is no harm
		}
	}
	return m, nil
}

func read(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Suspects returns what has been written under an earlier kernel and not verified
// since, sorted.
func (m *Marks) Suspects() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for n := range m.old {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Add marks content that is about to be written. The mark is on disk when the
// caller has synced the file system.
func (m *Marks) Add(name string) error {
	dir := filepath.Join(m.dir, m.boot)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// Forget takes all marks from content that is gone.
func (m *Marks) Forget(name string) error {
	if err := os.Remove(filepath.Join(m.dir, m.boot, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.Trust(name)
}

// Trust takes the suspicion from content that has been verified or made again.
func (m *Marks) Trust(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, path := range m.old[name] {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	delete(m.old, name)
	return nil
}

// Clear says that all that was written under this kernel has been synced by one
// more sync, with nothing written since.
func (m *Marks) Clear() error {
	if err := os.RemoveAll(filepath.Join(m.dir, m.boot)); err != nil {
		return err
	}
	err := statefile.SyncDir(m.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

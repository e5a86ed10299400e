package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// settled is how long a file must have been as it is before its times are
// believed: what is written twice within one tick of the kernel's clock has the
// same times. It is far longer than any tick.
const settled = 2 * time.Second

// maxLoaded bounds the policies that Files keeps, one for each namespace.
const maxLoaded = 1024

// Files reads policies and keeps them for as long as neither they nor the keys
// that they name change, which it sees from the files' times. Its zero value is
// ready; its methods are safe for concurrent use.
type Files struct {
	mu     sync.Mutex
	loaded map[string]*loaded
}

// loaded is the outcome of a Load. It is not changed any more.
type loaded struct {
	policy *Policy
	err    error
	stamps map[string]stamp
	at     time.Time
}

// stamp is what changes with a file. The zero value stands for none.
type stamp struct {
	dev, ino   uint64
	size       int64
	mtim, ctim unix.Timespec
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}
	}
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// fresh reports whether all files are as they were.
func (l *loaded) fresh() bool {
	for path, old := range l.stamps {
		if stampOf(path) != old {
			return false
		}
		changed := max(old.mtim.Nano(), old.ctim.Nano())
		if old != (stamp{}) && l.at.UnixNano()-changed < int64(settled) {
			return false
		}
	}
	return true
}

// Load returns the policy in a file, or nil where there is no such file.
func (f *Files) Load(path string) (*Policy, error) {
	f.mu.Lock()
	l := f.loaded[path]
	f.mu.Unlock()
	if l != nil && l.fresh() {
		return l.policy, l.err
	}
	l = load(path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loaded == nil || len(f.loaded) >= maxLoaded {
		f.loaded = map[string]*loaded{}
	}
	f.loaded[path] = l
	return l.policy, l.err
}

// load takes the stamps first: a change after that is seen the next time.
func load(path string) *loaded {
	l := &loaded{at: time.Now(), stamps: map[string]stamp{path: stampOf(path)}}
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l
	}
	if err != nil {
		l.err = fmt.Errorf("signature policy: %w", err)
		return l
	}
	l.policy, l.err = Parse(path, data, func(key string) ([]byte, error) {
		l.stamps[key] = stampOf(key)
		return readFile(key)
	})
	return l
}

// readFile reads a policy or a key.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file: %w", path, errs.Invalid))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err == nil && len(data) > maxPolicy {
		err = fmt.Errorf("%s has more than %d bytes: %w", path, maxPolicy, errs.Invalid)
	}
	return data, err
}

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/berth-run/berth/pkg/errs"
)

// Kills counts the processes that the kernel has killed for memory, by cgroup, also
// where the cgroup is gone: systemd removes a scope as soon as its last process has
// ended, often before anybody has looked. Version 2 counts in the cgroup above, too,
// and what is missing there is of the one that went unread. Two that go at the same
// time cannot be told apart: the first that is asked about has it all.
//
// The zero value is ready; it may be used concurrently.
type Kills struct {
	mu    sync.Mutex
	above map[string]*family
}

// family is what is known of the cgroups below one.
type family struct {
	dir    string
	before int            // of those that nobody asks about any more
	counts map[string]int // of each that was added, as last read
}

// Add has a cgroup of version 2 counted, from now on.
func (k *Kills) Add(dir string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	above := filepath.Dir(dir)
	f := k.above[above]
	if f == nil {
		f = &family{dir: above, counts: map[string]int{}}
		f.before, _ = f.missing() // where it cannot be read, Of says so
		if k.above == nil {
			k.above = map[string]*family{}
		}
		k.above[above] = f
	}
	f.counts[dir] += 0
}

// Of returns the count of a cgroup. The error is errs.NotFound where that is gone
// and was not added, or is gone with the one above.
func (k *Kills) Of(dir string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.above[filepath.Dir(dir)]
	n, err := MemoryKills(dir, "memory.events")
	switch {
	case f == nil, err != nil && !Gone(err):
		return n, err
	case err == nil:
		f.counts[dir] = n
		return n, nil
	}
	missing, err := f.missing()
	if err != nil {
		return 0, err
	}
	f.counts[dir] += missing
	return f.counts[dir], nil
}

// Drop ends Add, for a cgroup that has been removed.
func (k *Kills) Drop(dir string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.above[filepath.Dir(dir)]
	if f == nil {
		return
	}
	f.before += f.counts[dir]
	delete(f.counts, dir)
	if len(f.counts) == 0 {
		delete(k.above, f.dir)
	}
}

// missing returns how many kills are counted above and are no cgroup's that is
// known. One that comes between the reads would make a difference, either way.
func (f *family) missing() (n int, err error) {
	all := -1
	for range 10 { // they do not come that often
		before := all
		if all, err = MemoryKills(f.dir, "memory.events"); err != nil || all == before {
			break
		}
		n = all - f.known()
	}
	return max(0, n), err
}

// known adds up the counts of what is there, and of what was.
func (f *family) known() int {
	sum := f.before
	there := map[string]bool{}
	entries, _ := os.ReadDir(f.dir) // what came before an error is good
	for _, e := range entries {
		dir := filepath.Join(f.dir, e.Name())
		n, err := MemoryKills(dir, "memory.events")
		if !e.IsDir() || err != nil {
			continue
		}
		sum += n
		there[dir] = true
		if _, ours := f.counts[dir]; ours {
			f.counts[dir] = n
		}
	}
	for dir, n := range f.counts {
		if !there[dir] {
			sum += n
		}
	}
	return sum
}

// MemoryKills reads the count from a file of the cgroup: memory.events, or
// memory.oom_control of version 1.
func MemoryKills(dir, file string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if Gone(err) {
		return 0, fmt.Errorf("memory cgroup %s: %w: %w", dir, err, errs.NotFound)
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, nil // Linux before 4.13 does not count
}

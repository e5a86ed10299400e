package registry

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berth-run/berth/pkg/image/fetch"
)

// trust is what a repository knows of hosts whose bytes were wrong. The zero value
// is ready.
type trust struct {
	mu   sync.Mutex
	from map[digest.Digest][]string // whose bytes a blob was made of
	bad  map[digest.Digest][]string
}

// came notes the hosts that a blob came from.
func (t *trust) came(d digest.Digest, hosts []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from == nil {
		t.from = map[digest.Digest][]string{}
	}
	t.from[d] = hosts
}

// Distrust is told that the bytes of a blob, which was closed, were of no use: err
// says why. The hosts that they came from are not asked for it again. It returns err
// with the hosts named, and whether there are others to ask.
func (r *Repository) Distrust(d digest.Digest, err error) (others bool, _ error) {
	t := &r.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.from[d]) == 0 {
		return false, err
	}
	if t.bad == nil {
		t.bad = map[digest.Digest][]string{}
	}
	t.bad[d] = append(t.bad[d], t.from[d]...)
	err = fmt.Errorf("%w; it came from %s (if its copy is damaged, clear its cache or push the image to it again)", err, strings.Join(t.from[d], ", "))
	delete(t.from, d)
	for _, s := range r.servers(d) {
		others = others || !slices.Contains(t.bad[d], s.Host())
	}
	return others, err
}

// trusted leaves out the sources of a blob whose bytes were wrong, unless that is
// all.
func (r *Repository) trusted(d digest.Digest, sources []fetch.Source) []fetch.Source {
	t := &r.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	good := slices.DeleteFunc(slices.Clone(sources), func(s fetch.Source) bool { return slices.Contains(t.bad[d], s.Host()) })
	if len(good) == 0 {
		return sources
	}
	return good
}

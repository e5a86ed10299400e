package catalog

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// union joins lists of runtime handlers, of which an empty one is the default one's.
func union(a, b []string) []string {
	if len(a) == 0 {
		a = []string{""}
	}
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// Claim notes that an image is here for a runtime handler, too.
func (c *Catalog) Claim(id digest.Digest, handler string) error {
	_, _, err := c.Change(id, func(r *Record) bool {
		all := union(r.Handlers, nil)
		if slices.Contains(all, handler) {
			return false
		}
		r.Handlers = union(all, []string{handler})
		return true
	})
	return err
}

// Disclaim takes a runtime handler away from an image, and reports whether others need
// it. One that has no part in it takes nothing away, but "", which is of those who know
// of no handlers, takes all where it is not among them.
func (c *Catalog) Disclaim(id digest.Digest, handler string) (needed bool, err error) {
	_, _, err = c.Change(id, func(r *Record) bool {
		all := union(r.Handlers, nil)
		n := slices.Index(all, handler)
		if n < 0 || len(all) == 1 {
			needed = n < 0 && handler != ""
			return false
		}
		needed = true
		r.Handlers = slices.Delete(all, n, n+1)
		return true
	})
	return needed, err
}

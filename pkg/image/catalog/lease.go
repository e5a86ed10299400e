package catalog

import "github.com/opencontainers/go-digest"

// Lease keeps garbage collection off digests that no record names yet. It has one
// holder at a time.
type Lease struct {
	catalog *Catalog
	digests []digest.Digest
}

// Lease returns a lease of these digests, which its holder releases.
func (c *Catalog) Lease(digests ...digest.Digest) *Lease {
	l := &Lease{catalog: c}
	l.Add(digests...)
	return l
}

// Add adds digests.
func (l *Lease) Add(digests ...digest.Digest) {
	l.catalog.With(func(tx *Tx) { l.AddIn(tx, digests...) })
}

// AddIn adds digests within a transaction.
func (l *Lease) AddIn(tx *Tx, digests ...digest.Digest) {
	for _, d := range digests {
		tx.leases[d]++
	}
	l.digests = append(l.digests, digests...)
}

// Release gives all of them up.
func (l *Lease) Release() {
	l.catalog.With(func(tx *Tx) {
		for _, d := range l.digests {
			if tx.leases[d]--; tx.leases[d] == 0 {
				delete(tx.leases, d)
			}
		}
	})
}

// Package table keeps immutable records by id, read without locks.
package table

import (
	"fmt"
	"strings"
	"sync"

	"github.com/berth-run/berth/pkg/errs"
)

// Table maps ids to records of type V. The zero value is ready. A record must
// not change once stored: readers get it without any lock, a writer replaces
// it.
type Table[V any] struct {
	m sync.Map // id → *V
}

// Get returns the record of exactly this id, or nil.
func (t *Table[V]) Get(id string) *V {
	v, ok := t.m.Load(id)
	if !ok {
		return nil
	}
	return v.(*V)
}

// Put stores or replaces a record.
func (t *Table[V]) Put(id string, v *V) { t.m.Store(id, v) }

// Delete forgets a record.
func (t *Table[V]) Delete(id string) { t.m.Delete(id) }

// All returns every record, in no order.
func (t *Table[V]) All() []*V {
	var all []*V
	t.m.Range(func(_, v any) bool {
		all = append(all, v.(*V))
		return true
	})
	return all
}

// Find returns the record whose id is key or alone begins with it: people type
// the first digits. The error is errs.NotFound or, where several ids begin so,
// errs.Invalid.
func (t *Table[V]) Find(kind, key string) (*V, error) {
	if v := t.Get(key); v != nil {
		return v, nil
	}
	var found *V
	matches := 0
	if key != "" {
		t.m.Range(func(id, v any) bool {
			if strings.HasPrefix(id.(string), key) {
				found = v.(*V)
				matches++
			}
			return matches < 2
		})
	}
	switch matches {
	case 0:
		return nil, fmt.Errorf("%s %q: %w", kind, key, errs.NotFound)
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("%s %q: several ids begin with it, give more digits: %w", kind, key, errs.Invalid)
}

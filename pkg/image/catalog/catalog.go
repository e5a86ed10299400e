// Package catalog knows which images are here, and by which names. It keeps a
// record of each image and each reference on disk, and none of their content:
//
//	<dir>/records/<algorithm>-<id>.json   one per image
//	<dir>/refs/<sha256 of the name>.json  one per reference
//
// Writes are durable before they are seen. A record that cannot be read is set
// aside and is a Fault. A record whose content is missing or damaged stays, with
// its names, and is not in the Index: it holds what is left for the next pull.
//
// Readers use an immutable Index behind an atomic pointer and take no lock. Who
// changes something, or must see records and leases at one moment, has a Tx to
// itself; nothing slow runs under it but the small record writes.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// Inspect returns what keeps an image from being used: content that is missing or
// damaged. It reads the config of one that is whole into its record.
type Inspect func(r *Record) error

// Fault is a record that Open could not read.
type Fault struct {
	Path string // where it was
	What string // is wrong with it
}

// Catalog is the node's records of images. Its methods are safe for concurrent use.
type Catalog struct {
	records, refs string // directories
	inspect       Inspect
	index         atomic.Pointer[Index]

	mu sync.Mutex
	contents
}

// contents is what a Tx guards.
type contents struct {
	images map[digest.Digest]Record
	names  map[string]digest.Digest
	leases map[digest.Digest]int
	pinned reference.Patterns
	faults []Fault
}

// Open reads the records below dir. It fails only where the directories cannot be
// made or read.
func Open(ctx context.Context, dir string, pinned []string, inspect Inspect) (*Catalog, error) {
	c := &Catalog{
		records: filepath.Join(dir, "records"), refs: filepath.Join(dir, "refs"), inspect: inspect,
		contents: contents{
			images: map[digest.Digest]Record{}, names: map[string]digest.Digest{}, leases: map[digest.Digest]int{},
			pinned: reference.ParsePatterns(pinned),
		},
	}
	for _, d := range []string{c.records, c.refs} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make image store: %w", err)
		}
		if err := statefile.Sweep(d); err != nil {
			return nil, fmt.Errorf("sweep image store: %w", err)
		}
	}
	return c, c.Do(func(tx *Tx) error { return tx.load(ctx) })
}

// Index returns what is here at this moment.
func (c *Catalog) Index() *Index { return c.index.Load() }

// Do calls f with the catalog to itself. What f has changed is seen by readers
// once it returns, also where that is an error half-way.
func (c *Catalog) Do(f func(*Tx) error) (err error) {
	c.With(func(tx *Tx) { err = f(tx) })
	return err
}

// With is Do for what cannot fail.
func (c *Catalog) With(f func(*Tx)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx := &Tx{catalog: c, contents: &c.contents}
	defer tx.publish()
	f(tx)
}

// Save makes an image and its names durable, then visible, and with it others that
// lacked what it has brought.
func (c *Catalog) Save(ctx context.Context, r Record, names []string) (i Image, err error) {
	err = c.Do(func(tx *Tx) error {
		if old, ok := tx.images[r.ID]; ok {
			r.Created, r.Handlers = old.Created, union(old.Handlers, r.Handlers)
			if r.Trees == nil {
				r.Trees = old.Trees
			}
		}
		if err := tx.Put(r); err != nil {
			return err
		}
		defer tx.Review(ctx) // also what is left of a failure half-way
		for _, name := range names {
			if err := tx.SetName(name, r.ID); err != nil {
				return err
			}
		}
		i = tx.Image(r)
		return nil
	})
	return i, err
}

// Change changes an image's record, as f does, and returns the image. One that is
// not here, or of which f reports that it is so already, stays as it is.
func (c *Catalog) Change(id digest.Digest, f func(*Record) bool) (i Image, changed bool, err error) {
	err = c.Do(func(tx *Tx) error {
		r, ok := tx.images[id]
		if !ok || !f(&r) {
			return nil
		}
		if err := tx.Put(r); err != nil {
			return err
		}
		i, changed = tx.Image(r), true
		return nil
	})
	return i, changed, err
}

// Review looks again at the images that use any of the digests, or at all of those
// that are not shown where none is given, and shows those that are whole.
func (c *Catalog) Review(ctx context.Context, digests ...digest.Digest) {
	c.With(func(tx *Tx) { tx.Review(ctx, digests...) })
}

// SetPinned says which images are Pinned.
func (c *Catalog) SetPinned(patterns []string) {
	c.With(func(tx *Tx) { tx.pinned, tx.changed = reference.ParsePatterns(patterns), true })
}

// Records returns all records, also of what is damaged.
func (c *Catalog) Records() (all []Record) {
	c.With(func(tx *Tx) { all = slices.Collect(maps.Values(tx.images)) })
	return all
}

// Tx is a catalog that nobody else changes.
type Tx struct {
	catalog *Catalog
	*contents
	changed bool // the index is older
}

func (tx *Tx) recordPath(id digest.Digest) string {
	return filepath.Join(tx.catalog.records, id.Algorithm().String()+"-"+id.Encoded()+".json")
}

func (tx *Tx) refPath(name string) string {
	return filepath.Join(tx.catalog.refs, digest.FromString(name).Encoded()+".json")
}

// load reads all records; what it cannot read it sets aside.
func (tx *Tx) load(ctx context.Context) error {
	log := klog.FromContext(ctx)
	tx.changed = true
	aside := func(path string, err error) {
		log.Error(err, "Setting a damaged image record aside", "path", path)
		to, moveErr := statefile.Quarantine(path)
		tx.faults = append(tx.faults, Fault{path, fmt.Sprintf("damaged record, moved to %s: %v", to, errors.Join(err, moveErr))})
	}
	err := each(tx.catalog.records, func(path string) {
		r, err := tx.readRecord(path)
		if err != nil {
			aside(path, err)
			return
		}
		tx.look(ctx, &r)
		tx.images[r.ID] = r
	})
	if err != nil {
		return err
	}
	return each(tx.catalog.refs, func(path string) {
		r, err := tx.readRef(path)
		if err != nil {
			aside(path, err)
			return
		}
		tx.names[r.Name] = r.Image
	})
}

func each(dir string, use func(path string)) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read image records: %w", err)
	}
	for _, n := range names {
		if !statefile.Leftover(n.Name()) && strings.HasSuffix(n.Name(), ".json") {
			use(filepath.Join(dir, n.Name()))
		}
	}
	return nil
}

func (tx *Tx) readRecord(path string) (Record, error) {
	var r Record
	if err := statefile.Read(path, &r); err != nil {
		return r, err
	}
	switch {
	case r.Version != version:
		return r, fmt.Errorf("version %d: %w", r.Version, errs.Unsupported)
	case r.ID.Validate() != nil || r.Manifest.Digest.Validate() != nil || tx.recordPath(r.ID) != path:
		return r, fmt.Errorf("record of %q: %w", r.ID, statefile.ErrCorrupt)
	}
	return r, nil
}

func (tx *Tx) readRef(path string) (refRecord, error) {
	var r refRecord
	if err := statefile.Read(path, &r); err != nil {
		return r, err
	}
	if r.Version != version {
		return r, fmt.Errorf("version %d: %w", r.Version, errs.Unsupported)
	}
	if name, err := reference.Normalize(r.Name); err != nil || name != r.Name || tx.refPath(name) != path {
		return r, fmt.Errorf("reference %q: %w", r.Name, statefile.ErrCorrupt)
	}
	if r.Image.Validate() != nil { // where it has no record, its next pull brings it one
		return r, fmt.Errorf("reference %q to %q: %w", r.Name, r.Image, statefile.ErrCorrupt)
	}
	return r, nil
}

// look inspects an image and remembers since when it is damaged.
func (tx *Tx) look(ctx context.Context, r *Record) {
	fault := tx.catalog.inspect(r)
	if fault != nil && r.Fault == nil {
		r.Since = time.Now()
		klog.FromContext(ctx).Error(fault, "An image is damaged, and absent until it is pulled again", "image", r.ID)
	}
	r.Fault = fault
}

// Record returns the record of an image, if it has one.
func (tx *Tx) Record(id digest.Digest) (Record, bool) { r, ok := tx.images[id]; return r, ok }

// All returns all records by id. They are changed by Tx' methods only.
func (tx *Tx) All() map[digest.Digest]Record { return tx.images }

// Names returns what every name stands for. They are changed by Tx' methods only.
func (tx *Tx) Names() map[string]digest.Digest { return tx.names }

// Faults returns what Open has found, less what has been written again since.
func (tx *Tx) Faults() []Fault { return tx.faults }

// Forgive drops the faults: what was set aside will not be brought back.
func (tx *Tx) Forgive() { tx.faults = nil }

// Put writes a record.
func (tx *Tx) Put(r Record) error {
	r.Version = version
	if err := statefile.WriteDurable(tx.recordPath(r.ID), r); err != nil {
		return err
	}
	tx.images[r.ID], tx.changed = r, true
	tx.mended(tx.recordPath(r.ID))
	return nil
}

// SetName gives an image a name, which another may have had.
func (tx *Tx) SetName(name string, id digest.Digest) error {
	if tx.names[name] == id {
		return nil
	}
	if err := statefile.WriteDurable(tx.refPath(name), refRecord{Version: version, Name: name, Image: id}); err != nil {
		return err
	}
	tx.names[name], tx.changed = id, true
	tx.mended(tx.refPath(name))
	return nil
}

// mended drops what Open has found wrong with a file.
func (tx *Tx) mended(path string) {
	tx.faults = slices.DeleteFunc(tx.faults, func(f Fault) bool { return f.Path == path })
}

// DropName takes a name away.
func (tx *Tx) DropName(name string) error {
	if err := os.Remove(tx.refPath(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(tx.names, name)
	tx.changed = true
	return nil
}

// Forget drops an image's record and all its names.
func (tx *Tx) Forget(id digest.Digest) error {
	for name, image := range tx.names {
		if image != id {
			continue
		}
		if err := tx.DropName(name); err != nil {
			return err
		}
	}
	if err := os.Remove(tx.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(tx.images, id)
	tx.changed = true
	return nil
}

// Review is as Catalog's.
func (tx *Tx) Review(ctx context.Context, digests ...digest.Digest) {
	affected := map[digest.Digest]bool{}
	for _, d := range digests {
		affected[d] = true
	}
	for id, r := range tx.images {
		uses := len(digests) == 0 && r.Fault != nil
		for _, d := range r.Needs() {
			uses = uses || affected[d]
		}
		if !uses {
			continue
		}
		tx.look(ctx, &r)
		tx.images[id], tx.changed = r, true
	}
}

// Used returns every digest that an image or a lease needs.
func (tx *Tx) Used() map[digest.Digest]bool {
	used := map[digest.Digest]bool{}
	for d := range tx.leases {
		used[d] = true
	}
	for _, r := range tx.images {
		for _, d := range r.Needs() {
			used[d] = true
		}
	}
	return used
}

// Leased reports whether somebody holds a lease of d.
func (tx *Tx) Leased(d digest.Digest) bool { return tx.leases[d] > 0 }

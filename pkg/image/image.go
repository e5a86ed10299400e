// Package image owns images: their names, their pulls, their layers and the
// root file systems made of them.
//
// An image is known by its id, the digest of its config; references (tags and
// digests of repositories) point to ids. On disk:
//
//	<root>/images/records, refs                   what is here by which names, see package catalog
//	<root>/images/blobs/…                         manifests, configs, layers as pulled, artifacts' files
//	<root>/images/signatures/…                    what a signature policy was met with, see package trust
//	<root>/layers/…                               layers unpacked, see package layer
//	<root>/artifacts/…                            what artifacts show, see package artifact
//	<root>/images/volumes/<container>.json        what containers mount, see package volume
//	<root>/writable/<container>/…                 what containers write
//	<state>/images/…                              EROFS images, mounted while needed
//	<state>/rootfs/<container>/fs                 mounts
//	<state>/volumes/<container>/<n>               likewise
//
// The order of writes is content, record, reference, each durable, so what List
// shows is whole. Garbage collection looks at records and leases in one
// transaction of the catalog: what a pull is about to use is leased.
//
// After the machine has stopped uncleanly, Run verifies the layers written since
// it was last stopped well, one by one; who needs one of them sooner verifies it
// first. A layer that is damaged is set aside.
//
// Pulls run in goroutines that their waiters own: the last to leave cancels; Close
// waits. Run removes what they have left when nobody goes on from it.
package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/image/archive"
	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/entry"
	"github.com/berth-run/berth/pkg/image/fetch"
	"github.com/berth-run/berth/pkg/image/flight"
	"github.com/berth-run/berth/pkg/image/inflate"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/pkg/image/rootfs"
	"github.com/berth-run/berth/pkg/image/suspect"
	"github.com/berth-run/berth/pkg/image/trust"
	"github.com/berth-run/berth/pkg/image/upkeep"
	"github.com/berth-run/berth/pkg/image/volume"
)

// Options configures a Service. The zero value works.
type Options struct {
	Root  string // default /var/lib/berth
	State string // default /run/berth
	// KeepBlobs keeps layers also as they were pulled, compressed: Save and Push
	// give them out as they were then.
	KeepBlobs bool
	Registry  registry.Options
	// MaxConcurrentDownloads bounds the layers of one image that are fetched and
	// unpacked at a time; default 4.
	MaxConcurrentDownloads int
	// MemoryBudget bounds the memory of all pulls together, in bytes, but for about
	// 1 MiB, and 8 MiB for zstd, that each layer has whatever the others have: one half
	// is for what has been fetched, the other for what is inflated. Default 64 MiB.
	MemoryBudget int64
	// MaxConnections bounds the connections of all pulls; default 24.
	MaxConnections int
	Limits         entry.Limits // of each layer
	Pinned         []string     // see SetPinned
	Signatures     trust.Options
	// LayerBackend is the form that new layers are kept in; directories where it
	// is empty. LayerVerity protects them by fs-verity, where the file system can.
	LayerBackend layer.Backend
	LayerVerity  bool
	// Directories are the runtime handlers whose containers get layers as directories
	// whatever form they are kept in.
	Directories map[string]bool
}

func (o Options) withDefaults() Options {
	if o.Root == "" {
		o.Root = "/var/lib/berth"
	}
	if o.State == "" {
		o.State = "/run/berth"
	}
	o.MemoryBudget = cmp.Or(o.MemoryBudget, 64<<20)
	return o
}

// Image is what is known of one image. It is shared and must not be changed.
type Image = catalog.Image

// Service is the node's images. Its methods are safe for concurrent use.
type Service struct {
	options  Options
	catalog  *catalog.Catalog
	blobs    *blob.Store
	layers   *layer.Store
	keeper   upkeep.Keeper
	suspects *suspect.Verifier
	roots    *rootfs.Roots
	trust    *trust.Gate
	flights  flight.Group[Image]
	sizes    layerSizes
	pool     *inflate.Pool

	memory, connections *fetch.Budget // of all pulls

	artifacts *artifact.Store
	volumes   *volume.Store
	rests     sync.WaitGroup // removals of files that nothing names any more

	downloads atomic.Pointer[downloads]
	received  atomic.Int64 // bytes, by all of them
}

// Open opens the images below o.Root. It fails only where the directories cannot
// be made or read: a bad record is set aside and reported by Check.
func Open(ctx context.Context, o Options) (*Service, error) {
	o = o.withDefaults()
	s := &Service{
		options: o, pool: inflate.NewPool(o.MemoryBudget / 2),
		memory: fetch.NewBudget(o.MemoryBudget / 2), connections: fetch.NewBudget(int64(cmp.Or(o.MaxConnections, 24))),
	}
	s.SetDownloads(o.Registry, o.MaxConcurrentDownloads)
	if err := os.MkdirAll(s.spoolDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make image store: %w", err)
	}
	if err := archive.Sweep(s.spoolDir()); err != nil {
		return nil, err
	}
	var err error
	if s.blobs, err = blob.Open(filepath.Join(o.Root, "images", "blobs")); err != nil {
		return nil, err
	}
	if s.trust, err = trust.Open(o.Signatures, filepath.Join(o.Root, "images", "signatures")); err != nil {
		return nil, err
	}
	if s.layers, err = layer.Open(filepath.Join(o.Root, "layers"), layer.Options{
		Limits: o.Limits, Backend: o.LayerBackend, Verity: o.LayerVerity, Mounts: filepath.Join(o.State, "images"),
	}); err != nil {
		return nil, err
	}
	if used, err := s.layers.Backend(); err != nil {
		klog.FromContext(ctx).Info("Layers are kept in another form than they would be", "form", used, "reason", err)
	}
	s.roots, err = rootfs.Open(s.layers, filepath.Join(o.Root, "writable"), filepath.Join(o.State, "rootfs"))
	if err != nil {
		return nil, err
	}
	s.suspects = suspect.NewVerifier(s.layers, s.layers.Suspects(), s.keeper.Quarantine)
	s.artifacts, err = artifact.Open(filepath.Join(o.Root, "artifacts"), s.blobs, o.Limits)
	if err == nil {
		s.volumes, err = volume.Open(filepath.Join(o.Root, "images", "volumes"), filepath.Join(o.State, "volumes"), content{s.artifacts, s.roots})
	}
	if err == nil {
		s.keeper = upkeep.Keeper{Blobs: s.blobs, Layers: s.layers, Artifacts: s.artifacts, Roots: s.roots, Volumes: s.volumes, Signatures: s.trust}
		s.catalog, err = catalog.Open(ctx, filepath.Join(o.Root, "images"), o.Pinned, s.keeper.Fault)
		s.keeper.Catalog = s.catalog
	}
	if err != nil {
		_ = s.roots.Close()
		return nil, err
	}
	return s, nil
}

// Close ends running pulls and waits for them, and says on disk that all is well
// there. Root file systems stay mounted, and so do the images that they are made of.
func (s *Service) Close() error {
	s.flights.Close()
	s.rests.Wait()
	var used map[digest.Digest]bool
	roots, damaged, err := s.roots.List()
	if err == nil && len(damaged) == 0 {
		used = map[digest.Digest]bool{}
	}
	for _, r := range roots {
		if used != nil {
			s.layers.Mark(used, r.Layers)
		}
	}
	return errors.Join(err, s.roots.Close(), s.layers.Close(used))
}

// Package push uploads an image to a registry: its layers in parallel, then the
// config, last the manifest, so that nobody finds one of which parts are missing.
//
// A layer is looked for before it is made: in the repository, in others of the same
// registry that are known to have it, as it was pulled; then what is kept here goes,
// or is packed. It keeps nothing, and starts goroutines within one call only.
package push

import (
	"context"
	"errors"
	"io"
	"sync"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berth-run/berth/pkg/image/export"
	"github.com/berth-run/berth/pkg/image/registry"
)

// parallel bounds the layers that are packed and uploaded at a time.
const parallel = 3

// progressStep is how many bytes lie between two reports of one layer.
const progressStep = 256 << 10

// The phases of a blob, beside done.
const (
	PhasePacking   = "packing"
	PhaseUploading = "uploading"
	PhaseMounted   = "mounted"
	PhaseExists    = "exists"
	PhaseDone      = "done"
)

// Layer is a layer to push.
type Layer struct {
	export.Layer
	// Known are other repositories of the registry that may have the blob.
	Known []string
}

// Image is what is pushed. An artifact has no diffIDs.
type Image struct {
	Manifest ispec.Descriptor
	Data     []byte // the manifest, as it came
	Config   ispec.Descriptor
	Layers   []Layer
	Artifact bool
}

// Pusher pushes to one repository.
type Pusher struct {
	Exporter    *export.Exporter
	Target      *registry.Target
	Compression export.Compression
	// Report, if not nil, is told of each step of a blob, by its digest as it was
	// pulled, from one goroutine at a time.
	Report func(blob ispec.Descriptor, phase string, done, total int64)

	mu sync.Mutex // around Report
}

// Push uploads i under a tag, or under its digest alone where tag is empty, and
// returns the manifest that the registry has now.
func (p *Pusher) Push(ctx context.Context, i Image, tag string) (ispec.Descriptor, error) {
	layers := make([]ispec.Descriptor, len(i.Layers))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for n, l := range i.Layers {
		group.Go(func() (err error) {
			layers[n], err = p.layer(gctx, l, i.Artifact)
			return err
		})
	}
	group.Go(func() error { return p.kept(gctx, i.Config) })
	if err := group.Wait(); err != nil {
		return ispec.Descriptor{}, err
	}
	m, err := export.Manifest(i.Manifest, i.Data, layers)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	r, err := m.Open(ctx, 0)
	if err != nil {
		return ispec.Descriptor{}, err
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return ispec.Descriptor{}, err
	}
	return m.Descriptor, p.Target.Manifest(ctx, m.Descriptor, data, tag)
}

// layer makes the registry have a layer, and returns what it has.
func (p *Pusher) layer(ctx context.Context, l Layer, artifact bool) (ispec.Descriptor, error) {
	has, err := p.there(ctx, l.Blob, l.Known)
	if err != nil || has {
		return l.Blob, err
	}
	if artifact {
		return l.Blob, p.kept(ctx, l.Blob)
	}
	step := int64(0)
	b, err := p.Exporter.Layer(ctx, l.Layer, p.Compression, func(done, total int64) {
		if done-step >= progressStep {
			step = done
			p.report(l.Blob, PhasePacking, done, total)
		}
	})
	if err != nil {
		return ispec.Descriptor{}, err
	}
	if b.Digest != l.Blob.Digest {
		if has, err = p.Target.Has(ctx, b.Descriptor); has {
			p.report(l.Blob, PhaseExists, b.Size, b.Size)
		}
	}
	if err == nil && !has {
		err = p.upload(ctx, b, l.Blob)
	}
	return b.Descriptor, errors.Join(err, b.Close())
}

// there reports whether the repository has a blob, or has it now from another one.
func (p *Pusher) there(ctx context.Context, d ispec.Descriptor, known []string) (bool, error) {
	has, err := p.Target.Has(ctx, d)
	if has {
		p.report(d, PhaseExists, d.Size, d.Size)
	}
	if err != nil || has {
		return has, err
	}
	for _, from := range known {
		if p.Target.Mount(ctx, d, from) {
			p.report(d, PhaseMounted, d.Size, d.Size)
			return true, nil
		}
	}
	return false, ctx.Err()
}

// kept uploads a blob that is here as it is, unless the registry has it.
func (p *Pusher) kept(ctx context.Context, d ispec.Descriptor) error {
	if has, err := p.there(ctx, d, nil); err != nil || has {
		return err
	}
	b, err := p.Exporter.Kept(d)
	if err != nil {
		return err
	}
	return p.upload(ctx, b, d)
}

// upload uploads a blob that is reported as another one.
func (p *Pusher) upload(ctx context.Context, b *export.Blob, as ispec.Descriptor) error {
	told := int64(-progressStep)
	err := p.Target.Upload(ctx, b.Descriptor, b.Open, func(sent int64) {
		if sent-told >= progressStep || sent < told {
			told = sent
			p.report(as, PhaseUploading, sent, b.Size)
		}
	})
	if err == nil {
		p.report(as, PhaseDone, b.Size, b.Size)
	}
	return err
}

func (p *Pusher) report(d ispec.Descriptor, phase string, done, total int64) {
	if p.Report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Report(d, phase, done, total)
}

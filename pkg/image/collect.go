package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"
)

const (
	collectEvery = time.Hour
	leftFor      = 24 * time.Hour
)

// Run removes, at once and then each hour, what pulls that were cancelled or
// failed have left and nobody has gone on from for a day. It returns nil once ctx
// has ended.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		if err := s.collectOld(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Could not remove what pulls have left")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// collectOld does nothing where Open has set a record aside: what that names may
// be brought back, until somebody has Check repair it.
func (s *Service) collectOld(ctx context.Context) error {
	s.mu.Lock()
	doubt := len(s.faults) > 0
	s.mu.Unlock()
	if doubt {
		return nil
	}
	return s.collect(ctx, leftFor)
}

// usedLocked returns every digest that an image or a running pull needs.
func (s *Service) usedLocked() map[digest.Digest]bool {
	used := map[digest.Digest]bool{}
	for d := range s.leases {
		used[d] = true
	}
	for _, r := range s.records {
		used[r.ID], used[r.Manifest.Digest] = true, true
		for _, l := range r.Layers {
			used[l.Blob.Digest], used[l.DiffID] = true, true
		}
		for _, d := range r.Stack {
			used[d] = true
		}
	}
	return used
}

// unused returns what can go and has been here for age. Root file systems are looked at while mu keeps
// leases where they are: Mount holds one until its record is written.
func (s *Service) unused(age time.Duration) (layers, blobs []digest.Digest, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used, before := s.usedLocked(), time.Now().Add(-age)
	roots, damaged, err := s.roots.List()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range roots {
		for _, d := range r.Layers {
			used[d] = true
		}
	}
	if len(damaged) == 0 { // else nobody knows which layers they use
		all, err := s.layers.List()
		if err != nil {
			return nil, nil, err
		}
		for _, d := range all {
			if made, err := s.layers.Made(d); err == nil && !used[d] && !made.After(before) {
				layers = append(layers, d)
			}
		}
	}
	all, err := s.blobs.List()
	if err != nil {
		return nil, nil, err
	}
	for _, b := range all {
		if !used[b.Digest] && !b.Made.After(before) {
			blobs = append(blobs, b.Digest)
		}
	}
	return layers, blobs, nil
}

// collect removes layers and blobs that nothing uses and that have been here for
// age. Each is looked up again
// under mu just before it goes, so that a pull that begins now is safe.
func (s *Service) collect(ctx context.Context, age time.Duration) error {
	layers, blobs, err := s.unused(age)
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	var failed []error
	for _, d := range layers {
		failed = append(failed, s.discard(d, func() (func() error, error) { return s.layers.Discard(ctx, d) }))
	}
	for _, d := range blobs {
		failed = append(failed, s.discard(d, func() (func() error, error) { return func() error { return nil }, s.blobs.Remove(d) }))
	}
	return errors.Join(failed...)
}

// discard takes a digest's name away under mu and the rest after it.
func (s *Service) discard(d digest.Digest, take func() (func() error, error)) error {
	s.mu.Lock()
	if s.usedLocked()[d] {
		s.mu.Unlock()
		return nil
	}
	rest, err := take()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return rest()
}

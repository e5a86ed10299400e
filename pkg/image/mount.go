package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/rootfs"
)

// MountRequest asks for the root file system of a container.
type MountRequest struct {
	ContainerID string
	Image       digest.Digest // an image id
	Handler     string        // the runtime handler of its pod
	Use         string        // the one that the image is used for, which kubelet may not tell
	// UIDMappings and GIDMappings are those of the container's user namespace;
	// empty without one. Layers are shown through idmapped mounts, never copied.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	SELinuxLabel             string // that all files show as; empty for none
	// Changes, where set, are what Changes wrote of another container. They are hostile.
	Changes io.ReadSeeker
}

// Mount mounts a container's root file system and returns its path. It is
// idempotent, also after a reboot and after the image has been removed: the
// layers of a container stay until Unmount.
func (s *Service) Mount(ctx context.Context, r MountRequest) (string, error) {
	err := s.catalog.Claim(r.Image, r.Use)
	if err != nil {
		return "", err
	}
	stack, lease, err := s.stackOf(ctx, r.Image, r.Handler)
	if err != nil {
		if path, again := s.roots.Remount(ctx, r.ContainerID); again == nil {
			return path, nil
		}
		return "", fmt.Errorf("mount root file system of %s: %w", r.ContainerID, err)
	}
	defer lease.Release()
	path, err := s.roots.Mount(ctx, rootfs.Root{
		ID: r.ContainerID, Layers: stack, UIDMappings: r.UIDMappings, GIDMappings: r.GIDMappings, SELinuxLabel: r.SELinuxLabel,
		Changes: r.Changes,
	})
	if err != nil { // perhaps because a layer is gone
		s.catalog.Review(ctx, stack...)
	}
	return path, err
}

// stackOf returns what to mount for an image, leased until it is recorded as mounted.
func (s *Service) stackOf(ctx context.Context, id digest.Digest, handler string) ([]digest.Digest, *catalog.Lease, error) {
	lease := s.catalog.Lease()
	var r catalog.Record
	var ok bool
	s.catalog.With(func(tx *catalog.Tx) {
		if r, ok = tx.Record(id); ok && r.Fault == nil {
			lease.AddIn(tx, slices.Concat(r.DiffIDs(), r.Stack, r.Trees)...)
		}
	})
	if !ok {
		return nil, nil, fmt.Errorf("image %s: %w", id, errs.NotFound)
	}
	if r.Fault != nil {
		return nil, nil, fmt.Errorf("image %s is damaged: pull it again: %s: %w", id, r.Fault.Error(), errs.NotFound)
	}
	stack, err := s.settle(ctx, r, lease, s.options.Directories[handler])
	if err != nil {
		lease.Release()
	}
	return stack, lease, err
}

// settle returns what to mount for an image whose layers are leased. Nothing of it is
// a suspect, and what was made of the layers and is missing or damaged is made again.
// With trees it is directories in any case.
func (s *Service) settle(ctx context.Context, r catalog.Record, lease *catalog.Lease, trees bool) ([]digest.Digest, error) {
	if err := s.suspects.Settle(ctx, r.DiffIDs()...); err != nil {
		return nil, err
	}
	have, make := func(r *catalog.Record) *[]digest.Digest { return &r.Stack }, s.layers.Stack
	if trees && s.layers.Composed(r.Stack) {
		have, make = func(r *catalog.Record) *[]digest.Digest { return &r.Trees }, s.layers.Trees
	}
	was := *have(&r)
	if err := s.suspects.Settle(ctx, was...); err != nil && !errors.Is(err, errs.NotFound) {
		return nil, err
	}
	if s.layers.Stacked(was) && (len(was) > 0 || len(r.DiffIDs()) == 0) {
		return was, nil
	}
	stack, err := make(ctx, r.DiffIDs(), lease.Add)
	if err == nil && !slices.Equal(stack, was) {
		// One that is being added, or was removed meanwhile, has no record.
		_, _, err = s.catalog.Change(r.ID, func(r *catalog.Record) bool { *have(r) = stack; return true })
	}
	return stack, err
}

// Unmount unmounts a container's root file system and its volumes, and removes
// what it has written. It is idempotent.
func (s *Service) Unmount(ctx context.Context, containerID string) error {
	return s.keeper.Unmount(ctx, containerID)
}

// Changes writes what a container has written over its image, as a layer's tar
// stream. Nobody may write there meanwhile.
func (s *Service) Changes(ctx context.Context, containerID string, w io.Writer) error {
	return s.roots.Changes(ctx, containerID, w)
}

// Usage returns what a container has written: an answer of at most ten seconds
// ago, and a lower bound where there are very many files or levels. The error is of kind
// NotFound without such a container.
func (s *Service) Usage(ctx context.Context, containerID string) (bytes, inodes uint64, err error) {
	u, err := s.roots.Usage(ctx, containerID)
	return u.Bytes, u.Inodes, err
}

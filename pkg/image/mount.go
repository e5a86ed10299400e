package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/rootfs"
)

// MountRequest asks for the root file system of a container.
type MountRequest struct {
	ContainerID string
	Image       digest.Digest // an image id
	// UIDMappings and GIDMappings are those of the container's user namespace;
	// empty without one. Layers are shown through idmapped mounts, never copied.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	SELinuxLabel             string // that all files show as; empty for none
}

// Mount mounts a container's root file system and returns its path. It is
// idempotent, also after a reboot and after the image has been removed: the
// layers of a container stay until Unmount.
func (s *Service) Mount(ctx context.Context, r MountRequest) (string, error) {
	stack, lease, err := s.stackOf(r.Image)
	if err != nil {
		if path, again := s.roots.Remount(ctx, r.ContainerID); again == nil {
			return path, nil
		}
		return "", fmt.Errorf("mount root file system of %s: %w", r.ContainerID, err)
	}
	defer lease.release()
	return s.roots.Mount(ctx, rootfs.Root{
		ID: r.ContainerID, Layers: stack, UIDMappings: r.UIDMappings, GIDMappings: r.GIDMappings, SELinuxLabel: r.SELinuxLabel,
	})
}

// stackOf returns an image's layers, leased until they are recorded as mounted.
func (s *Service) stackOf(id digest.Digest) ([]digest.Digest, *lease, error) {
	s.mu.Lock()
	r, ok := s.records[id]
	if ok {
		for _, d := range r.Stack {
			s.leases[d]++
		}
	}
	s.mu.Unlock()
	if !ok {
		return nil, nil, fmt.Errorf("image %s: %w", id, errs.NotFound)
	}
	return r.Stack, &lease{service: s, digests: r.Stack}, nil
}

// Unmount unmounts a container's root file system and its volumes, and removes
// what it has written. It is idempotent.
func (s *Service) Unmount(ctx context.Context, containerID string) error {
	if err := s.volumes.Unmount(ctx, containerID); err != nil {
		return err
	}
	return s.roots.Unmount(ctx, containerID)
}

// Usage returns what a container has written: an answer of at most ten seconds
// ago, and a lower bound where there are very many files or levels. The error is of kind
// NotFound without such a container.
func (s *Service) Usage(ctx context.Context, containerID string) (bytes, inodes uint64, err error) {
	u, err := s.roots.Usage(ctx, containerID)
	return u.Bytes, u.Inodes, err
}

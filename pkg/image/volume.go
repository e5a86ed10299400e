package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/artifact"
	"github.com/berth-run/berth/pkg/image/catalog"
	"github.com/berth-run/berth/pkg/image/idmap"
	"github.com/berth-run/berth/pkg/image/rootfs"
	"github.com/berth-run/berth/pkg/image/volume"
)

// ErrVolume says that an image could not be mounted as a volume.
var ErrVolume = volume.ErrMount

// VolumeSource is an image or an artifact that a container mounts.
type VolumeSource struct {
	Ref     string // a name or an id
	Asked   string // the name that the user asked for; "" for Ref
	SubPath string // what of it; "" for all
	Path    string // where the container sees it, for messages
}

// VolumesRequest asks for all image volumes of a container.
type VolumesRequest struct {
	ContainerID string
	Handler     string // the runtime handler of its pod
	Namespace   string // the Kubernetes one, whose signature policy counts
	Sources     []VolumeSource
	// UIDMappings and GIDMappings are those of the container's user namespace;
	// empty without one.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	SELinuxLabel             string // that all files show as; empty for none
}

// Volume is a mounted image or artifact: a directory or a file that nobody writes
// to.
type Volume struct {
	Path  string
	Image digest.Digest // its id
}

// MountVolumes mounts the volumes of a container, in the order of their sources.
// They stay as they are until Unmount, also where their images are removed. The
// error is ErrVolume, and ErrRefused too for what the signature policy does not
// accept.
func (s *Service) MountVolumes(ctx context.Context, r VolumesRequest) ([]Volume, error) {
	v := volume.Record{ID: r.ContainerID, Mappings: idmap.Mappings{UIDs: r.UIDMappings, GIDs: r.GIDMappings}, SELinuxLabel: r.SELinuxLabel}
	lease := s.catalog.Lease()
	defer lease.Release()
	for _, source := range r.Sources {
		i, err := s.source(ctx, source, s.options.Directories[r.Handler], &v, lease)
		if err == nil {
			err = s.Admit(ctx, i, cmp.Or(source.Asked, source.Ref), r.Namespace)
		}
		if err != nil {
			return nil, fmt.Errorf("%w at %s: %w", ErrVolume, source.Path, err)
		}
	}
	mounted, err := s.volumes.Mount(ctx, v)
	if err != nil && !errors.Is(err, ErrVolume) {
		err = fmt.Errorf("%w: %w", ErrVolume, err)
	}
	if err != nil {
		return nil, err
	}
	var all []Volume
	for _, m := range mounted {
		all = append(all, Volume{Path: m.HostPath, Image: m.Image})
	}
	return all, nil
}

// source adds to v what a source is made of, and keeps it until v is recorded.
func (s *Service) source(ctx context.Context, source VolumeSource, trees bool, v *volume.Record, lease *catalog.Lease) (i Image, err error) {
	var r catalog.Record
	err = s.catalog.Do(func(tx *catalog.Tx) error {
		if i, err = s.Get(source.Ref); err != nil {
			return err
		}
		r, _ = tx.Record(i.ID)
		lease.AddIn(tx, r.Needs()...)
		return nil
	})
	if errors.Is(err, errs.NotFound) {
		return i, fmt.Errorf("%w: pull it first, as kubelet does", err)
	}
	if err != nil {
		return i, err
	}
	stack, err := s.settle(ctx, r, lease, trees)
	if err != nil {
		return i, err
	}
	one := volume.Volume{Path: source.Path, Image: r.ID, Layers: stack, SubPath: source.SubPath}
	if r.Artifact != nil {
		one.Tree = r.Artifact.Tree
		v.Blobs = append(v.Blobs, r.Content()...)
	}
	v.Volumes = append(v.Volumes, one)
	return i, nil
}

// content is what volumes show.
type content struct {
	*artifact.Store
	roots *rootfs.Roots
}

// View implements volume.Content.
func (c content) View(ctx context.Context, r volume.Record, v volume.Volume, target string) error {
	root := rootfs.Root{
		ID: "volume-" + r.ID, Layers: v.Layers, UIDMappings: r.Mappings.UIDs, GIDMappings: r.Mappings.GIDs, SELinuxLabel: r.SELinuxLabel,
	}
	if v.Tree != "" {
		root.Tree = c.Tree(v.Tree)
	}
	return c.roots.View(ctx, root, target)
}

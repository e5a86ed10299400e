package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/runtime"
)

// restoreDir is the dump that a container waits to go on from, in its directory.
const restoreDir = "restore"

// CreateFrom is Create of a container that goes on from a checkpoint when it is
// started; until then none of its processes exist, and berth-runtime knows nothing
// of it. The error is errs.Invalid where the configuration is not that of the
// checkpoint.
func (s *Service) CreateFrom(ctx context.Context, p Pod, c *cri.ContainerConfig, from *checkpoint.Part) (string, error) {
	id, key := newID(), nameKey(p.ID, c)
	if holder, ok := s.names.Reserve(key, id); !ok {
		return s.again(holder, c)
	}
	if err := s.create(ctx, id, p, c, from); err != nil {
		s.names.Release(key, id)
		return "", fmt.Errorf("restore container %s in pod %s: %w", c.GetMetadata().GetName(), p.ID, err)
	}
	return id, nil
}

// changes opens what the root file system begins with; nil where that is the image.
func changes(from *checkpoint.Part) (io.ReadSeeker, func(), error) {
	if from == nil {
		return nil, func() {}, nil
	}
	f, err := from.OpenChanges()
	if err != nil {
		return nil, nil, err
	}
	return f, func() { f.Close() }, nil
}

// await makes a container of a checkpoint wait for its start.
func (s *Service) await(ctx context.Context, k *Container, sp *specs.Spec, from *checkpoint.Part) error {
	is, err := describe(k, sp)
	if err == nil {
		err = checkpoint.Possible(sp)
	}
	if err == nil {
		err = from.Was.Check(is)
	}
	if err != nil {
		return err
	}
	return from.CopyImages(ctx, filepath.Join(s.dir(k.ID), restoreDir))
}

// begin starts a created container in the runtime.
func (s *Service) begin(ctx context.Context, c *Container) (runtime.Container, error) {
	if !c.restores {
		return s.d.Runtime.Start(ctx, c.ID)
	}
	r, err := s.readConfig(c.ID)
	if err != nil {
		return runtime.Container{}, err
	}
	dir := filepath.Join(s.dir(c.ID), restoreDir)
	started, err := s.d.Runtime.Restore(ctx, runtime.RestoreRequest{CreateRequest: runtime.CreateRequest{
		ID: c.ID, PodID: c.PodID, Spec: r.Spec, Env: r.Env, LogPath: c.LogPath, Stdin: c.Config.GetStdin(), StdinOnce: c.Config.GetStdinOnce(),
	}, Dir: dir})
	if err == nil && s.tidy(c.ID) == nil {
		_ = os.RemoveAll(dir) // what stays goes with the container
	}
	return started, err
}

// tidy unmounts what a CRIU that was killed has left mounted beside its dump, which
// must not be removed with it: CRIU mounts the host's cgroups there.
func (p *paths) tidy(id string) error {
	left, err := filepath.Glob(filepath.Join(p.dir(id), restoreDir, ".criu.*"))
	for _, path := range left {
		unmountErr := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if unmountErr != nil && !errors.Is(unmountErr, unix.EINVAL) && !errors.Is(unmountErr, unix.ENOENT) {
			err = errors.Join(err, &os.PathError{Op: "unmount", Path: path, Err: unmountErr})
		}
	}
	return err
}

// waits reports whether the runtime does not have to know the container yet.
func (c *Container) waits() bool { return c.restores && c.Status.State == Created }

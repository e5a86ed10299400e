package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/undo"
	"github.com/berth-run/berth/pkg/runtime"
)

// dumpPrefix begins the names of unfinished archives' content, in a container's
// directory.
const dumpPrefix = "dump-"

// pauseLimit bounds how long a container takes to be paused.
const pauseLimit = 30 * time.Second

// Checkpoint writes a running container to an archive at an absolute path. The
// container goes on. The error is errs.Unsupported where the node cannot do so.
func (s *Service) Checkpoint(ctx context.Context, id, to string) error {
	if err := checkpoint.CheckLocation(to); err != nil {
		return err
	}
	c, err := s.Get(id)
	if err == nil {
		err = s.d.Runtime.CanCheckpoint(ctx)
	}
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	dir, err := os.MkdirTemp(s.dir(c.ID), dumpPrefix)
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	defer os.RemoveAll(dir) // at the latest it goes with the container
	_, err = s.Dump(ctx, []string{c.ID}, func(int) string { return dir })
	if err == nil {
		err = checkpoint.Archive(ctx, dir, to)
	}
	if err != nil {
		return fmt.Errorf("checkpoint container %s: %w", c.ID, err)
	}
	return nil
}

// Dump pauses running containers, all of them before the first is written down, each
// into the directory that dir tells for its place, and resumes them, however it ends.
// It returns what they are. The error is errs.Conflict for one that does not run.
func (s *Service) Dump(ctx context.Context, ids []string, dir func(n int) string) (all []checkpoint.Container, err error) {
	var undone undo.Stack
	defer func() { err = errors.Join(err, undone.Run(ctx)) }()
	for _, id := range ids {
		if err := s.checkpointable(ctx, id); err != nil {
			return nil, err
		}
	}
	for _, id := range slices.Sorted(slices.Values(ids)) { // so that two do not wait for each other
		if err := s.pause(ctx, id, &undone); err != nil {
			return nil, err
		}
	}
	for n, id := range ids {
		was, err := s.dump(ctx, id, dir(n))
		if err != nil {
			return nil, err
		}
		all = append(all, was)
	}
	return all, nil
}

// checkpointable refuses a container that cannot be written down, or made of that
// again, for what it is: nothing has to be paused for that.
func (s *Service) checkpointable(ctx context.Context, id string) error {
	c, err := s.Get(id)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(s.dir(c.ID), "volumes")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("container %s has volumes of its image, which checkpoints do not hold: %w", c.ID, errors.Join(err, errs.Unsupported))
	}
	r, err := s.readConfig(c.ID)
	if err == nil {
		err = checkpoint.Possible(r.Spec)
	}
	if err == nil {
		_, err = s.command(ctx, c.handler, true)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", c.ID, err)
	}
	return nil
}

// pause pauses a container and keeps its lock, until undone runs.
func (s *Service) pause(ctx context.Context, id string, undone *undo.Stack) error {
	c, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	undone.Push(func(context.Context) error { unlock(); return nil })
	if c.Status.State != Running {
		return fmt.Errorf("container %s does not run: %w", c.ID, errs.Conflict)
	}
	s.paused.Store(c.ID, true)
	undone.Push(func(ctx context.Context) error {
		defer s.paused.Delete(c.ID)
		// While berth-runtime is being restarted, which may have done so.
		err := runtime.Outlast(ctx, func(ctx context.Context) (bool, error) { return false, s.d.Runtime.Resume(ctx, c.ID) })
		if errors.Is(err, errs.Conflict) || errors.Is(err, errs.NotFound) {
			return nil // it was not paused, or has ended
		}
		return err
	})
	// A pause that is given up may come about after it has been undone.
	pausing, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseLimit)
	defer cancel()
	return errors.Join(s.d.Runtime.Pause(pausing, c.ID), ctx.Err())
}

// thaw resumes a container that a checkpoint left paused, because this daemon or
// berth-runtime was killed.
func (s *Service) thaw(ctx context.Context, r runtime.Container) {
	if _, ours := s.paused.Load(r.ID); ours || r.State != runtime.Paused {
		return
	}
	klog.FromContext(ctx).Info("Resume a container that a checkpoint left paused", "container", r.ID)
	err := s.d.Runtime.Resume(ctx, r.ID)
	if err != nil && !errors.Is(err, errs.Conflict) { // somebody has been quicker, or it has ended
		klog.FromContext(ctx).Error(err, "Cannot resume a container", "container", r.ID)
	}
}

// dump writes one paused container down.
func (s *Service) dump(ctx context.Context, id, dir string) (checkpoint.Container, error) {
	c, err := s.Get(id)
	if err != nil {
		return checkpoint.Container{}, err
	}
	r, err := s.readConfig(c.ID)
	if err != nil {
		return checkpoint.Container{}, err
	}
	was, err := describe(c, r.Spec)
	if err != nil {
		return was, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return was, err
	}
	plain, process := *r.Spec, *r.Spec.Process
	process.Env = nil // need not be UTF-8, and is in the dump
	plain.Process = &process
	if err := s.d.Runtime.Checkpoint(ctx, runtime.CheckpointRequest{ID: c.ID, Spec: &plain, Dir: dir}); err != nil {
		return was, err
	}
	out, err := os.OpenFile(filepath.Join(dir, checkpoint.Changes), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return was, err
	}
	err = s.d.Images.Changes(ctx, c.ID, out)
	if err = errors.Join(err, out.Close()); err != nil {
		return was, fmt.Errorf("root file system of container %s: %w", c.ID, err)
	}
	return was, s.writeNotes(c, r, dir)
}

// writeNotes writes what checkpointctl shows, in the form of other runtimes. Berth
// does not read it.
func (s *Service) writeNotes(c *Container, r configRecord, dir string) error {
	notes := map[string]any{
		"id": c.ID, "name": c.Config.GetMetadata().GetName(), "rootfsImage": c.ImageID, "rootfsImageRef": c.ImageID,
		"rootfsImageName": c.Config.GetImage().GetUserSpecifiedImage(), "runtime": "berth", "createdTime": c.CreatedAt, "checkpointedTime": time.Now(),
	}
	for name, v := range map[string]any{checkpoint.Config: notes, checkpoint.Spec: r.Spec} {
		data, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// describe tells what a container made from the specification is.
func describe(c *Container, sp *specs.Spec) (checkpoint.Container, error) {
	return checkpoint.Describe(c.Config.GetMetadata().GetName(), c.ImageID, c.Config.GetStdin(), sp)
}

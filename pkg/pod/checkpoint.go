package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
)

// Checkpoint writes containers of a ready pod, which run, into an empty directory at
// an absolute path: all are paused before the first is written down, and resumed
// after the last, however it ends. What an unsuccessful call has written is removed.
// The error is errs.Unsupported where the node cannot do so, errs.NotFound for a pod
// that is not there, errs.Conflict for one that is not ready.
func (s *Service) Checkpoint(ctx context.Context, id, dir string, containers []string) error {
	p, err := s.Get(id)
	if err != nil {
		return err
	}
	if err := s.checkpoint(ctx, p.ID, dir, containers); err != nil {
		return fmt.Errorf("checkpoint pod %s: %w", p.ID, err)
	}
	return nil
}

func (s *Service) checkpoint(ctx context.Context, id, dir string, containers []string) error {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("wait for another operation: %w", err)
	}
	defer unlock()
	p, err := s.Get(id) // it may have been removed meanwhile
	if err != nil {
		return err
	}
	if p.State != Ready {
		return fmt.Errorf("it is not ready: %w", errs.Conflict)
	}
	if err := s.selected(p.ID, containers); err != nil {
		return err
	}
	if err := checkpoint.Empty(dir); err != nil {
		return err
	}
	if err := s.d.Runtime.CanCheckpoint(ctx); err != nil {
		return err
	}
	all, err := s.d.Containers.Dump(ctx, containers, func(n int) string { return checkpoint.Dir(dir, n) })
	if err == nil {
		err = checkpoint.Finish(dir, all)
	}
	if err == nil {
		err = ctx.Err() // the caller counts on nothing being there
	}
	if err != nil {
		return errors.Join(err, checkpoint.Clear(dir))
	}
	return nil
}

// selected refuses containers that are not of the pod, do not run or come twice.
func (s *Service) selected(id string, containers []string) error {
	if len(containers) == 0 {
		return fmt.Errorf("no containers are selected: %w", errs.Invalid)
	}
	names := map[string]bool{}
	for n, cid := range containers {
		if slices.Contains(containers[:n], cid) {
			return fmt.Errorf("container %s is selected twice: %w", cid, errs.Invalid)
		}
		c, err := s.d.Containers.Get(cid)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errors.New(err.Error()), errs.Invalid) // the pod is there
		case c.ID != cid || c.PodID != id:
			return fmt.Errorf("container %s is not of this pod: %w", cid, errs.Invalid)
		case c.Status.State != container.Running:
			return fmt.Errorf("container %s does not run: %w", cid, errs.Conflict)
		case names[c.Config.GetMetadata().GetName()]:
			return fmt.Errorf("two containers are named %s: %w", c.Config.GetMetadata().GetName(), errs.Invalid)
		}
		names[c.Config.GetMetadata().GetName()] = true
	}
	return nil
}

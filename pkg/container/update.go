package container

import (
	"context"
	"fmt"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/spec"
)

// Update changes the limits of a created or running container; zero fields stay
// as they are. The kernel's refusal, such as of a memory limit below what is in
// use, is the error; the old limits then stay in force and recorded. After any
// other failure the record has the old ones, so that the caller repeats the call.
func (s *Service) Update(ctx context.Context, id string, r *cri.LinuxContainerResources) error {
	c, unlock, err := s.lockLiving(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if r, err = s.d.Plugins.Update(ctx, c, r); err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	if err := s.setLimits(ctx, c, r); err != nil {
		return err
	}
	s.d.Plugins.Tell(ctx, StepUpdated, s.table.Get(c.ID))
	return nil
}

// SetLimits is Update for the plugins, who need not be asked.
func (s *Service) SetLimits(ctx context.Context, id string, r *cri.LinuxContainerResources) error {
	c, unlock, err := s.lockLiving(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return s.setLimits(ctx, c, r)
}

func (s *Service) lockLiving(ctx context.Context, id string) (*Container, func(), error) {
	c, unlock, err := s.lock(ctx, id)
	if err == nil && c.Status.State == Exited {
		unlock()
		err = fmt.Errorf("update container %s: it has ended: %w", c.ID, errs.Conflict)
	}
	return c, unlock, err
}

func (s *Service) setLimits(ctx context.Context, c *Container, r *cri.LinuxContainerResources) error {
	if c.waits() {
		return fmt.Errorf("update container %s: it has to be restored first, which its start does: %w", c.ID, errs.Conflict)
	}
	merged, limits, err := spec.Update(c.Status.Resources, r, s.d.Host)
	if err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	request := runtime.UpdateRequest{ID: c.ID, Resources: limits}
	if score := r.GetOomScoreAdj(); score != 0 {
		adjusted := spec.OOMScoreAdj(score, s.d.Host, s.d.Handlers[""]) // the node's minimum is every handler's
		request.OOMScoreAdj = &adjusted
	}
	ctx, cancel := detach(ctx)
	defer cancel()
	if err := s.d.Runtime.Update(ctx, request); err != nil {
		return fmt.Errorf("update container %s: %w", c.ID, err)
	}
	release, err := s.records.Lock(ctx, c.ID)
	if err != nil {
		return err
	}
	defer release()
	if c, err = s.Get(c.ID); err != nil {
		return err
	}
	changed := *c
	changed.Status.Resources = merged
	// Unlike a state, the runtime does not tell them again.
	if err := s.writeStatus(c.ID, changed.Status); err != nil {
		return fmt.Errorf("record limits of container %s: %w", c.ID, err)
	}
	s.table.Put(c.ID, &changed)
	return nil
}

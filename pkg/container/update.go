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
// use, is the error, and the record then stays.
func (s *Service) Update(ctx context.Context, id string, r *cri.LinuxContainerResources) error {
	c, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if c.Status.State == Exited {
		return fmt.Errorf("update container %s: it has ended: %w", c.ID, errs.Conflict)
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
	s.change(ctx, c.ID, func(st Status) Status {
		st.Resources = merged
		return st
	})
	return nil
}

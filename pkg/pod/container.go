package pod

import (
	"context"
	"fmt"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// CreateContainer makes a container in a ready pod and returns its id. An equal
// call that is still under way is joined; see container.Service.Create for one
// that has ended. The error is errs.NotFound for a pod that is not there,
// errs.Conflict for one that is not ready.
func (s *Service) CreateContainer(ctx context.Context, podID string, c *cri.ContainerConfig) (string, error) {
	p, err := s.Get(podID)
	if err != nil {
		return "", err
	}
	sum, err := fingerprint(c)
	if err != nil {
		return "", fmt.Errorf("configuration of a container in pod %s: %w", p.ID, err)
	}
	return s.creates.Do(ctx, p.ID+"/"+sum, func(ctx context.Context) (string, error) {
		ctx, p, unlock, err := s.lock(ctx, p.ID)
		if err != nil {
			return "", err
		}
		defer unlock()
		if p.State != Ready {
			return "", fmt.Errorf("create container %s: pod %s is not ready: %w", c.GetMetadata().GetName(), p.ID, errs.Conflict)
		}
		if err := checkOwn(p.Config, c); err != nil {
			return "", fmt.Errorf("create container %s in pod %s: %w", c.GetMetadata().GetName(), p.ID, err)
		}
		return s.d.Containers.Create(ctx, s.forContainer(p), c)
	})
}

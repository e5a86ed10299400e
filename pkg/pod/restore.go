package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/checkpoint"
	"github.com/berth-run/berth/pkg/errs"
)

// Restored is a container that Restore has made.
type Restored struct{ Name, ID string }

// Restore makes a ready pod and containers that wait for their start, which go on from
// the checkpoint in dir. The configurations are of exactly the containers in the
// checkpoint. The directory is read and not needed any more afterwards. A failed call
// leaves nothing. The error is errs.Invalid for a checkpoint that is none or that the
// configurations do not fit, errs.Unsupported where the node cannot restore, else
// Run's and CreateContainer's.
func (s *Service) Restore(ctx context.Context, dir string, config *cri.PodSandboxConfig, handler string, containers []*cri.ContainerConfig) (string, []Restored, error) {
	if err := s.validate(config, handler); err != nil {
		return "", nil, err
	}
	if err := s.d.Runtime.CanCheckpoint(ctx); err != nil {
		return "", nil, err
	}
	dump, err := checkpoint.Open(dir)
	if err != nil {
		return "", nil, err
	}
	defer dump.Close()
	if err := sameNames(dump.Names(), containers); err != nil {
		return "", nil, err
	}
	key, p := nameKey(config), &Sandbox{ID: newID(), Config: config, Handler: handler, CreatedAt: time.Now(), State: Ready}
	if holder, ok := s.names.Reserve(key, p.ID); !ok {
		return "", nil, fmt.Errorf("pod name %s belongs to pod %s: %w", key, holder, errs.Exists)
	}
	if err := s.run(ctx, p); err != nil {
		s.names.Release(key, p.ID)
		return "", nil, fmt.Errorf("restore pod %s: %w", key, err)
	}
	all, err := s.restore(ctx, p, dump, containers)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("restore pod %s: %w", key, err), s.Remove(context.WithoutCancel(ctx), p.ID))
	}
	return p.ID, all, nil
}

func (s *Service) restore(ctx context.Context, p *Sandbox, dump *checkpoint.Dump, containers []*cri.ContainerConfig) ([]Restored, error) {
	var all []Restored
	for _, c := range containers {
		name := c.GetMetadata().GetName()
		part, err := dump.Container(name)
		if err != nil {
			return nil, err
		}
		id, err := s.d.Containers.CreateFrom(ctx, s.forContainer(p), c, part)
		if err != nil {
			return nil, err
		}
		all = append(all, Restored{name, id})
	}
	return all, ctx.Err()
}

// sameNames refuses configurations that are not of exactly the named containers.
func sameNames(names []string, containers []*cri.ContainerConfig) error {
	var asked []string
	for _, c := range containers {
		asked = append(asked, c.GetMetadata().GetName())
	}
	slices.Sort(asked)
	slices.Sort(names)
	if !slices.Equal(asked, names) {
		return fmt.Errorf("the configurations are of the containers %q, the checkpoint has %q: %w", asked, names, errs.Invalid)
	}
	return nil
}

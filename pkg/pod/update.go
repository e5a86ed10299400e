package pod

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// UpdateResources records the overhead and the resources of a pod; nil leaves
// them as they are. Nothing is done to cgroups: kubelet has set the pod's before
// it calls, and a pod of whose cgroup Berth is the owner has no limits of its own.
// Plugins may refuse. The error is errs.NotFound for a pod that is not there.
func (s *Service) UpdateResources(ctx context.Context, id string, overhead, resources *cri.LinuxContainerResources) error {
	ctx, p, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.d.Plugins.Update(ctx, p, overhead, resources); err != nil {
		return fmt.Errorf("update resources of pod %s: %w", p.ID, err)
	}
	updated := *p
	if overhead != nil {
		updated.overhead = overhead
	}
	if resources != nil {
		updated.resources = resources
	}
	if err := s.writeState(&updated); err != nil {
		return fmt.Errorf("update resources of pod %s: %w", p.ID, err)
	}
	s.table.Put(p.ID, &updated)
	return nil
}

// InForce returns Config with the overhead and the resources that it has been
// updated to.
func (p *Sandbox) InForce() *cri.PodSandboxConfig {
	if p.overhead == nil && p.resources == nil {
		return p.Config
	}
	c := proto.CloneOf(p.Config)
	if c.Linux == nil {
		c.Linux = &cri.LinuxPodSandboxConfig{}
	}
	if p.overhead != nil {
		c.Linux.Overhead = p.overhead
	}
	if p.resources != nil {
		c.Linux.Resources = p.resources
	}
	return c
}

// encode returns protobuf's JSON, nothing for nil.
func encode(r *cri.LinuxContainerResources) (json.RawMessage, error) {
	if r == nil {
		return nil, nil
	}
	raw, err := protojson.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode resources: %w: %w", errs.Invalid, err)
	}
	return raw, nil
}

func decode(raw json.RawMessage) (*cri.LinuxContainerResources, error) {
	if raw == nil {
		return nil, nil
	}
	r := &cri.LinuxContainerResources{}
	return r, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, r)
}

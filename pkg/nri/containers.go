package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/image/idmap"
)

// containers is what package container tells.
type containers struct{ *Service }

// Containers returns what package container tells.
func (s *Service) Containers() container.Plugins { return containers{s} }

// refusal says what a plugin does not want, without the protocol's code: as an
// answer of ours that would mean something else.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("NRI plugin: %s", status.Convert(err).Message())
}

// Create lets plugins change a container that is about to be made. The caller
// holds new ones out.
func (s containers) Create(ctx context.Context, c *container.Container, sp *specs.Spec) error {
	if s.idle() {
		return nil
	}
	s.tellEnds(ctx)
	s.containers.add(c.ID)
	self := s.containerOf(c, sp)
	before := namesOf(self)
	reply, err := s.adaptation.CreateContainer(ctx, &api.CreateContainerRequest{Pod: s.pod(c.PodID), Container: self})
	if err != nil {
		return refusal(err)
	}
	takeAway(reply.GetAdjust(), before, namesOf(self))
	s.updates.put(&batch{updates: reply.GetUpdate()})
	limits, err := adjust(sp, reply.GetAdjust(), c.Status.Resources, s.o.Host)
	if err == nil {
		err = s.addDevices(sp, reply.GetAdjust().GetCDIDevices())
	}
	if err != nil {
		return fmt.Errorf("what NRI plugins ask for: %w", err)
	}
	c.Status.Resources = limits
	return nil
}

// addDevices adds what CDI specifications say of the devices.
func (s containers) addDevices(sp *specs.Spec, devices []*api.CDIDevice) error {
	c := &cri.ContainerConfig{}
	for _, d := range devices {
		c.CDIDevices = append(c.CDIDevices, &cri.CDIDevice{Name: d.GetName()})
	}
	edits, err := s.o.Devices.For(c)
	if err == nil {
		edits.Apply(sp, idmap.Possible)
	}
	return err
}

// Update returns what plugins make of new limits.
func (s containers) Update(ctx context.Context, c *container.Container, r *cri.LinuxContainerResources) (*cri.LinuxContainerResources, error) {
	if s.idle() {
		return r, nil
	}
	defer s.Hold()()
	reply, err := s.adaptation.UpdateContainer(ctx, &api.UpdateContainerRequest{
		Pod: s.pod(c.PodID), Container: s.containerOf(c, nil), LinuxResources: nriLimits(r),
	})
	if err != nil {
		return nil, refusal(err)
	}
	all := reply.GetUpdate()
	last := len(all) - 1 // the library puts the container's own there, nil where no plugin has changed it
	others, own := all[:last], all[last]
	s.updates.put(&batch{updates: others})
	if own == nil {
		return r, nil
	}
	limits, err := criLimits(own.GetLinux().GetResources())
	if err != nil {
		return nil, fmt.Errorf("what NRI plugins ask for: %w", err)
	}
	merged := proto.CloneOf(r)
	if len(limits.HugepageLimits) > 0 {
		merged.HugepageLimits = nil // Merge appends
	}
	proto.Merge(merged, limits)
	return merged, nil
}

// Start tells of a container that is about to start.
func (s containers) Start(ctx context.Context, c *container.Container) error {
	if s.idle() {
		return nil
	}
	defer s.Hold()()
	return refusal(s.adaptation.StartContainer(ctx, &api.StartContainerRequest{Pod: s.pod(c.PodID), Container: s.containerOf(c, nil)}))
}

// Tell tells of a step that has been made. After StepCreated all updates are made
// that plugins asked for at Create.
func (s containers) Tell(ctx context.Context, step container.Step, c *container.Container) {
	if s.idle() {
		return
	}
	if step == container.StepCreated { // not before: now nothing is held that an update may wait for
		notice(ctx, "update others", c.ID, s.wait(ctx, &batch{}))
	}
	defer s.Hold()()
	s.telling.Lock()
	defer s.telling.Unlock()
	if step == container.StepRemoved {
		s.removedLocked(ctx, c)
		return
	}
	if s.containers.ended(c.ID) {
		return // so soon that the end came first: after it nothing is told but the removal
	}
	var err error
	pod, self := s.pod(c.PodID), s.containerOf(c, nil)
	switch step {
	case container.StepCreated:
		err = s.adaptation.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: pod, Container: self})
	case container.StepStarted:
		err = s.adaptation.PostStartContainer(ctx, &api.PostStartContainerRequest{Pod: pod, Container: self})
	case container.StepUpdated:
		err = s.adaptation.PostUpdateContainer(ctx, &api.PostUpdateContainerRequest{Pod: pod, Container: self})
	}
	notice(ctx, string(step), c.ID, err)
}

func (s *Service) removedLocked(ctx context.Context, c *container.Container) {
	s.stoppedLocked(ctx, c)
	if s.containers.forget(c.ID) {
		err := s.adaptation.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: s.pod(c.PodID), Container: s.containerOf(c, nil)})
		notice(ctx, string(container.StepRemoved), c.ID, err)
	}
}

// stopped tells once that a container has ended, and takes what plugins want
// others to get of what it had.
func (s *Service) stopped(ctx context.Context, c *container.Container) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.stoppedLocked(ctx, c)
}

func (s *Service) stoppedLocked(ctx context.Context, c *container.Container) {
	if !s.containers.end(c.ID) {
		return
	}
	reply, err := s.adaptation.StopContainer(ctx, &api.StopContainerRequest{Pod: s.pod(c.PodID), Container: s.containerOf(c, nil)})
	notice(ctx, "stopped", c.ID, err)
	s.updates.put(&batch{updates: reply.GetUpdate()})
}

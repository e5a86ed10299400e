package container

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Step is one in a container's life that plugins are told of. They learn of its
// end from the events.
type Step string

// The steps.
const (
	StepCreated Step = "created"
	StepStarted Step = "started"
	StepUpdated Step = "updated"
	StepRemoved Step = "removed" // or never made, after Create
)

// Plugins take part in containers' life, from Create to StepRemoved. Package nri
// has them.
type Plugins interface {
	// Hold keeps new ones out, which would be told neither of what is in the making
	// nor what there is, until release is called. Other locks may be held, but no
	// method but Create is called meanwhile.
	Hold() (release func())
	// Create changes, under Hold, what a container is about to be made of: sp and
	// c.Status.Resources. c is not shared yet. Its error refuses the container.
	Create(ctx context.Context, c *Container, sp *specs.Spec) error
	// Update returns what to set instead of r. Its error refuses the update.
	Update(ctx context.Context, c *Container, r *cri.LinuxContainerResources) (*cri.LinuxContainerResources, error)
	// Start tells of a container that is about to start. Its error is why it does not.
	Start(ctx context.Context, c *Container) error
	// Tell tells of a step that has been made.
	Tell(ctx context.Context, step Step, c *Container)
}

// noPlugins are none.
type noPlugins struct{}

func (noPlugins) Hold() func()                                          { return func() {} }
func (noPlugins) Create(context.Context, *Container, *specs.Spec) error { return nil }
func (noPlugins) Start(context.Context, *Container) error               { return nil }
func (noPlugins) Tell(context.Context, Step, *Container)                {}

func (noPlugins) Update(_ context.Context, _ *Container, r *cri.LinuxContainerResources) (*cri.LinuxContainerResources, error) {
	return r, nil
}

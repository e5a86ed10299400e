package pod

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plugins take part in pods' life, from Run to Removed. Package nri has them.
type Plugins interface {
	// Hold keeps new ones out, which would be told neither of what is in the making
	// nor what there is, until release is called. Other locks may be held, but no
	// method but Run is called meanwhile.
	Hold() (release func())
	// Run tells, under Hold, of a pod that is about to be ready. Its error refuses it.
	Run(ctx context.Context, p *Sandbox) error
	// Stopped tells of a pod whose containers have ended; its namespaces are there.
	Stopped(ctx context.Context, p *Sandbox)
	// Removed tells of a pod that is gone, or was not made after Run.
	Removed(ctx context.Context, p *Sandbox)
	// Update tells of limits that kubelet has set for the pod as a whole.
	Update(ctx context.Context, p *Sandbox, overhead, limits *cri.LinuxContainerResources) error
}

// noPlugins are none.
type noPlugins struct{}

func (noPlugins) Hold() func()                        { return func() {} }
func (noPlugins) Run(context.Context, *Sandbox) error { return nil }
func (noPlugins) Stopped(context.Context, *Sandbox)   {}
func (noPlugins) Removed(context.Context, *Sandbox)   {}

func (noPlugins) Update(context.Context, *Sandbox, *cri.LinuxContainerResources, *cri.LinuxContainerResources) error {
	return nil
}

// Namespaces are the paths where those of the pod's are pinned that it does not
// share with the host. It must not be changed.
func (p *Sandbox) Namespaces() map[specs.LinuxNamespaceType]string { return p.namespaces }

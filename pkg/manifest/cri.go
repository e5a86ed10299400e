package manifest

import (
	"cmp"
	"context"
	"errors"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// Pods is what the controller uses of CRI's calls for pods. The daemon's own
// servers have these methods: they are called in process.
type Pods interface {
	RunPodSandbox(context.Context, *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error)
	StopPodSandbox(context.Context, *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error)
	RemovePodSandbox(context.Context, *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error)
	ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error)
	PodSandboxStatus(context.Context, *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error)
}

// Containers is what the controller uses of CRI's calls for containers.
type Containers interface {
	CreateContainer(context.Context, *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error)
	StartContainer(context.Context, *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error)
	StopContainer(context.Context, *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error)
	RemoveContainer(context.Context, *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error)
	ContainerLister
}

// ContainerLister tells which containers there are.
type ContainerLister interface {
	ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error)
	ContainerStatus(context.Context, *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error)
}

// Images is what the controller uses of CRI's image service.
type Images interface {
	ImageStatus(context.Context, *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error)
	PullImage(context.Context, *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error)
}

// observed is what CRI knows of one pod.
type observed struct {
	// sandbox is the one that is ready, if any; others are to be removed.
	sandbox *runtimeapi.PodSandbox
	others  []*runtimeapi.PodSandbox
	// containers holds the newest attempt of each in the newest sandbox, by
	// name; older ones are to be removed.
	containers map[string]*runtimeapi.ContainerStatus
	older      []string
}

// observe asks for a pod's sandboxes and containers.
func (d *Deps) observe(ctx context.Context, uid string) (observed, error) {
	selector := map[string]string{apiv1.LabelPodUID: uid, apiv1.LabelOwner: apiv1.OwnerManifest}
	o := observed{containers: map[string]*runtimeapi.ContainerStatus{}}
	pods, err := d.Pods.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return o, err
	}
	for _, p := range slices.SortedFunc(slices.Values(pods.Items), newestPodFirst) {
		if o.sandbox == nil && p.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			o.sandbox = p
		} else {
			o.others = append(o.others, p)
		}
	}
	newest := o.sandbox
	if newest == nil && len(o.others) > 0 {
		newest = o.others[0]
	}
	if newest == nil {
		return o, nil
	}
	return o, d.observeContainers(ctx, newest.Id, &o)
}

func (d *Deps) observeContainers(ctx context.Context, sandbox string, o *observed) error {
	list, err := d.Containers.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: sandbox}})
	if err != nil {
		return err
	}
	for _, c := range slices.SortedFunc(slices.Values(list.Containers), newestContainerFirst) {
		if o.containers[c.GetMetadata().GetName()] != nil {
			o.older = append(o.older, c.Id)
			continue
		}
		resp, err := d.Containers.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
		if errors.Is(err, errs.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		o.containers[c.GetMetadata().GetName()] = resp.Status
	}
	return nil
}

func newestPodFirst(a, b *runtimeapi.PodSandbox) int {
	return cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt())
}

func newestContainerFirst(a, b *runtimeapi.Container) int {
	return cmp.Compare(b.GetMetadata().GetAttempt(), a.GetMetadata().GetAttempt())
}

// nextAttempt is one more than any sandbox of the pod had.
func (o *observed) nextAttempt() uint32 {
	next := uint32(0)
	for _, p := range o.others {
		next = max(next, p.GetMetadata().GetAttempt()+1)
	}
	return next
}

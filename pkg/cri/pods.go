package cri

import (
	"context"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/pod"
)

// Pods answers the calls about pod sandboxes.
type Pods struct {
	Service    *pod.Service
	Containers *Containers
}

// RunPodSandbox makes a pod that is ready for containers.
func (p *Pods) RunPodSandbox(ctx context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	id, err := p.Service.Run(ctx, r.GetConfig(), r.GetRuntimeHandler())
	if err != nil {
		return nil, lacking(notUs(err))
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox ends what runs in a pod and gives its network back.
func (p *Pods) StopPodSandbox(ctx context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	err := notUs(p.Service.Stop(ctx, r.GetPodSandboxId()))
	if err := idempotent(err, missing(p.Service.Get(r.GetPodSandboxId()))); err != nil {
		return nil, err
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox removes a pod with its containers.
func (p *Pods) RemovePodSandbox(ctx context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	err := notUs(p.Service.Remove(ctx, r.GetPodSandboxId()))
	if err := idempotent(err, missing(p.Service.Get(r.GetPodSandboxId()))); err != nil {
		return nil, err
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus tells all of one pod, its containers' statuses included, as
// of Timestamp.
func (p *Pods) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	now := time.Now()
	s, err := p.Service.Get(r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: sandboxStatus(s), Timestamp: now.UnixNano()}
	for _, c := range p.Containers.Service.InPod(s.ID) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, p.Containers.status(c))
	}
	if r.GetVerbose() {
		info := map[string]any{"netns": s.NetNS, "ips": s.IPs, "config": s.InForce(), "runtimeHandler": s.Handler}
		resp.Info, err = verbose(info)
	}
	return resp, err
}

// UpdatePodSandboxResources notes what kubelet has set the pod's cgroup to, and tells
// plugins.
func (p *Pods) UpdatePodSandboxResources(ctx context.Context, r *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	if err := p.Service.UpdateResources(ctx, r.GetPodSandboxId(), r.GetOverhead(), r.GetResources()); err != nil {
		return nil, lacking(err)
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

// ListPodSandbox lists pods, the newest first.
func (p *Pods) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: p.filtered(r.GetFilter())}, nil
}

func (p *Pods) filtered(f *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	var all []*runtimeapi.PodSandbox
	for _, s := range p.Service.List() {
		if item := sandbox(s); matchesSandbox(item, f) {
			all = append(all, item)
		}
	}
	return all
}

func matchesSandbox(s *runtimeapi.PodSandbox, f *runtimeapi.PodSandboxFilter) bool {
	return strings.HasPrefix(s.Id, f.GetId()) &&
		(f.GetState() == nil || f.GetState().GetState() == s.State) &&
		matchesLabels(s.Labels, f.GetLabelSelector())
}

// matchesLabels tells whether labels have all that is selected. CRI knows only
// exact values.
func matchesLabels(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func sandboxState(s pod.State) runtimeapi.PodSandboxState {
	if s == pod.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func sandbox(s *pod.Sandbox) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Id: s.ID, Metadata: s.Config.GetMetadata(), State: sandboxState(s.State), CreatedAt: s.CreatedAt.UnixNano(),
		Labels: s.Config.GetLabels(), Annotations: s.Config.GetAnnotations(), RuntimeHandler: s.Handler,
	}
}

func sandboxStatus(s *pod.Sandbox) *runtimeapi.PodSandboxStatus {
	return &runtimeapi.PodSandboxStatus{
		Id: s.ID, Metadata: s.Config.GetMetadata(), State: sandboxState(s.State), CreatedAt: s.CreatedAt.UnixNano(),
		Network: networkStatus(s), Labels: s.Config.GetLabels(), Annotations: s.Config.GetAnnotations(), RuntimeHandler: s.Handler,
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
			Options: s.Config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
	}
}

// networkStatus tells the addresses of a ready pod. With the host's network
// there are none to tell.
func networkStatus(s *pod.Sandbox) *runtimeapi.PodSandboxNetworkStatus {
	n := &runtimeapi.PodSandboxNetworkStatus{}
	if s.State != pod.Ready {
		return n
	}
	for i, ip := range s.IPs {
		if i == 0 {
			n.Ip = ip.String()
		} else {
			n.AdditionalIps = append(n.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
		}
	}
	return n
}

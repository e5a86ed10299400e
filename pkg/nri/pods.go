package nri

import (
	"context"

	"github.com/containerd/nri/pkg/api"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/pod"
)

// pods is what package pod tells.
type pods struct{ *Service }

// Pods returns what package pod tells.
func (s *Service) Pods() pod.Plugins { return pods{s} }

// Run tells of a pod that is about to be ready. The caller holds new plugins out.
func (s pods) Run(ctx context.Context, p *pod.Sandbox) error {
	if s.idle() {
		return nil
	}
	s.pods.add(p.ID)
	return refusal(s.adaptation.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: podOf(p)}))
}

// Stopped tells of a pod whose containers have ended, the network being there.
func (s pods) Stopped(ctx context.Context, p *pod.Sandbox) {
	if s.idle() {
		return
	}
	defer s.Hold()()
	s.tellEnds(ctx)
	s.stop(ctx, p)
}

func (s pods) stop(ctx context.Context, p *pod.Sandbox) {
	if s.pods.end(p.ID) {
		notice(ctx, "stop pod", p.ID, s.adaptation.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: podOf(p)}))
	}
}

// Removed tells of a pod that is gone, or was refused.
func (s pods) Removed(ctx context.Context, p *pod.Sandbox) {
	if s.idle() {
		return
	}
	defer s.Hold()()
	s.stop(ctx, p)
	if s.pods.forget(p.ID) {
		notice(ctx, "remove pod", p.ID, s.adaptation.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: podOf(p)}))
	}
}

// Update tells of new limits of the pod's cgroup, which kubelet has set.
func (s pods) Update(ctx context.Context, p *pod.Sandbox, overhead, limits *cri.LinuxContainerResources) error {
	if s.idle() {
		return nil
	}
	defer s.Hold()()
	_, err := s.adaptation.UpdatePodSandbox(ctx, &api.UpdatePodSandboxRequest{
		Pod: podOf(p), OverheadLinuxResources: nriLimits(overhead), LinuxResources: nriLimits(limits),
	})
	if err != nil {
		return refusal(err)
	}
	notice(ctx, "update pod", p.ID, s.adaptation.PostUpdatePodSandbox(ctx, &api.PostUpdatePodSandboxRequest{Pod: podOf(p)}))
	return nil
}

// notice logs what a plugin says about something that has happened already.
func notice(ctx context.Context, step, id string, err error) {
	if err != nil {
		klog.FromContext(ctx).Error(refusal(err), "An NRI plugin does not take notice", "step", step, "id", id)
	}
}

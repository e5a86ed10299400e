package client

import (
	"context"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// Remove removes a container, and its pod too where `berth run` made it. One
// that runs is errs.Conflict unless force is set.
func (c *Client) Remove(ctx context.Context, ctr *runtimeapi.Container, force bool) error {
	name, owner := ctr.GetMetadata().GetName(), ctr.Labels[apiv1.LabelOwner]
	switch {
	case owner == apiv1.OwnerManifest && !force:
		pod := ctr.Labels[apiv1.LabelPodName]
		return fail(errs.Conflict, "container %s belongs to the applied pod %s, which would start it again: use berth delete %s", name, pod, pod)
	case isRunning(ctr) && !force:
		return fail(errs.Conflict, "container %s runs: stop it first (berth stop %s), or use -f", name, name)
	case owner == apiv1.OwnerRun:
		return c.removePod(ctx, ctr.PodSandboxId, ctr.Labels[apiv1.LabelPodUID])
	}
	_, err := c.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: ctr.Id})
	return err
}

// RemoveEmptyPod removes the pod of a `berth run` that never came to make its
// container; errs.NotFound where key means no such pod.
func (c *Client) RemoveEmptyPod(ctx context.Context, key string) error {
	pod, err := c.FindPod(ctx, key)
	if err != nil {
		return err
	}
	ctrs, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: pod.Id}})
	if err != nil {
		return err
	}
	if pod.Labels[apiv1.LabelOwner] != apiv1.OwnerRun || len(ctrs.Containers) > 0 {
		return fail(errs.NotFound, "no pod %q without a container", key)
	}
	return c.removePod(ctx, pod.Id, pod.Labels[apiv1.LabelPodUID])
}

// removePod removes a pod that has no kubelet, with its logs.
func (c *Client) removePod(ctx context.Context, id, uid string) error {
	if _, err := c.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return err
	}
	if _, err := c.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return err
	}
	_, err := c.Admin.RemoveLogs(ctx, &apiv1.RemoveLogsRequest{PodUid: uid})
	return err
}

// Stop ends a container: its stop signal, then a kill after so many seconds. A
// pod that `berth run` made is stopped with it, which frees its address and
// ports.
func (c *Client) Stop(ctx context.Context, ctr *runtimeapi.Container, seconds int64) error {
	if _, err := c.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: ctr.Id, Timeout: seconds}); err != nil {
		return err
	}
	if ctr.Labels[apiv1.LabelOwner] != apiv1.OwnerRun {
		return nil
	}
	_, err := c.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: ctr.PodSandboxId})
	return err
}

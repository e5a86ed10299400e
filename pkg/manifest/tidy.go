package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/manifest/podspec"
)

// tidyEvery bounds how late an end that nobody told of is seen.
const tidyEvery = 10 * time.Second

// tidier ends the pods of `berth run` once their container has: their address
// and host ports are free again, as people expect. With run's --rm and -d it
// removes them too.
type tidier struct {
	deps *Deps
	kick chan struct{}
}

func newTidier(d *Deps) *tidier { return &tidier{d, make(chan struct{}, 1)} }

func (t *tidier) notify() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *tidier) run(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		if err := t.tidy(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Pods that have ended were not tidied")
		}
		select {
		case <-ctx.Done():
			return
		case <-t.kick:
		case <-ticker.C:
		}
	}
}

// tidy looks at the pods of `berth run` that are up or to be removed.
func (t *tidier) tidy(ctx context.Context) error {
	exited, err := t.deps.Containers.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED},
		LabelSelector: map[string]string{apiv1.LabelOwner: apiv1.OwnerRun},
	}})
	if err != nil || len(exited.Containers) == 0 {
		return err
	}
	up, err := t.deps.Pods.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{apiv1.LabelOwner: apiv1.OwnerRun},
	}})
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, p := range up.Items {
		ready[p.Id] = true
	}
	var failed []error // one that cannot be ended must not keep the others
	for _, c := range exited.Containers {
		if ready[c.PodSandboxId] || c.Labels[apiv1.LabelRemove] == "true" {
			if err := t.endPod(ctx, c); err != nil {
				failed = append(failed, fmt.Errorf("pod %s: %w", c.PodSandboxId, err))
			}
		}
	}
	return errors.Join(failed...)
}

func (t *tidier) endPod(ctx context.Context, c *runtimeapi.Container) error {
	if _, err := t.deps.Pods.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: c.PodSandboxId}); ignoreMissing(err) != nil {
		return err
	}
	if c.Labels[apiv1.LabelRemove] != "true" {
		return nil
	}
	if _, err := t.deps.Pods.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: c.PodSandboxId}); ignoreMissing(err) != nil {
		return err
	}
	uid := c.Labels[apiv1.LabelPodUID]
	if !podspec.ValidUID(uid) { // labels are anybody's to give
		return nil
	}
	return os.RemoveAll(store{t.deps.Root}.logs(uid))
}

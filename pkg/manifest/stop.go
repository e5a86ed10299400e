package manifest

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/manifest/podspec"
)

// stopPod stops the containers, sidecars last and in reverse order, and then
// the sandbox. What it did stays to be looked at.
func (w *worker) stopPod(ctx context.Context, o observed) error {
	if o.sandbox == nil {
		return nil
	}
	if err := w.stopContainers(ctx, o); err != nil {
		return err
	}
	_, err := w.deps.Pods.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: o.sandbox.Id})
	return err
}

func (w *worker) stopContainers(ctx context.Context, o observed) error {
	spec := w.record.Pod.Spec
	var first []corev1.Container
	var sidecars []corev1.Container
	for _, c := range spec.InitContainers {
		if podspec.IsSidecar(&c) {
			sidecars = append(sidecars, c)
		} else {
			first = append(first, c)
		}
	}
	failed := make([]error, len(first)+len(spec.Containers))
	var stops sync.WaitGroup
	for i, c := range append(first, spec.Containers...) {
		stops.Go(func() { failed[i] = w.stopContainer(ctx, o.containers[c.Name]) })
	}
	stops.Wait()
	for _, c := range slices.Backward(sidecars) {
		failed = append(failed, w.stopContainer(ctx, o.containers[c.Name]))
	}
	return errors.Join(failed...)
}

func (w *worker) stopContainer(ctx context.Context, s *runtimeapi.ContainerStatus) error {
	if !isRunning(s) {
		return nil
	}
	_, err := w.deps.Containers.StopContainer(ctx, &runtimeapi.StopContainerRequest{
		ContainerId: s.Id, Timeout: *w.record.Pod.Spec.TerminationGracePeriodSeconds,
	})
	return ignoreMissing(err)
}

// removePod takes away all of a pod: containers, sandboxes, volumes, logs, and
// at last its record.
func (w *worker) removePod(ctx context.Context) error {
	p := w.record.Pod
	o, err := w.deps.observe(ctx, string(p.UID))
	if err != nil {
		return err
	}
	if err := w.stopPod(ctx, o); err != nil {
		return err
	}
	all := o.others
	if o.sandbox != nil {
		all = append(all, o.sandbox)
	}
	for _, s := range all {
		if err := w.removeSandbox(ctx, s.Id); err != nil {
			return err
		}
	}
	if err := removeVolumes(w.store.volumes(string(p.UID))); err != nil {
		return err
	}
	if err := os.RemoveAll(w.store.logs(string(p.UID))); err != nil {
		return err
	}
	return w.store.remove(podspec.NameOf(p))
}

func (w *worker) removeSandbox(ctx context.Context, id string) error {
	if _, err := w.deps.Pods.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); ignoreMissing(err) != nil {
		return err
	}
	_, err := w.deps.Pods.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	return ignoreMissing(err)
}

func (w *worker) removeContainer(ctx context.Context, id string) error {
	_, err := w.deps.Containers.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return ignoreMissing(err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

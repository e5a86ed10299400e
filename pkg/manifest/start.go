package manifest

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/manifest/podspec"
)

// kubelet's reasons for a container that could not be started.
const (
	reasonPull       = "ErrImagePull"
	reasonNeverPull  = "ErrImageNeverPull"
	reasonConfig     = "CreateContainerConfigError"
	reasonCreate     = "CreateContainerError"
	reasonRun        = "RunContainerError"
	reasonNewSandbox = "FailedCreatePodSandBox"
)

// startSandbox removes what is left of earlier sandboxes and runs a new one.
func (w *worker) startSandbox(ctx context.Context, o observed, attempt uint32) error {
	p := w.record.Pod
	for _, old := range o.others {
		if err := w.removeSandbox(ctx, old.Id); err != nil {
			return err
		}
	}
	logs := w.store.logs(string(p.UID))
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	_, err := w.deps.Pods.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: podspec.Sandbox(p, attempt, logs)})
	return err
}

// start brings one container up. Where it fails the reason is noted, and the
// next try waits.
func (w *worker) start(ctx context.Context, o observed, s startStep) {
	state := w.record.container(s.container.Name)
	reason, err := w.tryStart(ctx, o, s, state)
	if err != nil {
		state.start.fail(time.Now(), reason, err)
		return
	}
	state.start.clear()
}

func (w *worker) tryStart(ctx context.Context, o observed, s startStep, state *containerState) (reason string, err error) {
	p, c := w.record.Pod, s.container
	image, reason, err := w.ensureImage(ctx, c)
	if err != nil {
		return reason, err
	}
	config, err := w.configure(ctx, o, c, image, uint32(state.Attempts))
	if err != nil {
		return reasonConfig, err
	}
	// The attempt is on disk before it is made: no two have one number.
	if isExited(s.previous) {
		state.BackOff.attempt(time.Unix(0, s.previous.FinishedAt), time.Now())
	}
	state.Attempts++
	if err := w.store.save(w.record); err != nil {
		return reasonCreate, err
	}
	if s.previous != nil {
		if err := w.removeContainer(ctx, s.previous.Id); err != nil {
			return reasonCreate, err
		}
	}
	created, err := w.deps.Containers.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: o.sandbox.Id, Config: config,
		SandboxConfig: podspec.Sandbox(p, o.sandbox.GetMetadata().GetAttempt(), w.store.logs(string(p.UID))),
	})
	if err != nil {
		return reasonCreate, err
	}
	if _, err := w.deps.Containers.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		_ = w.removeContainer(ctx, created.ContainerId) // the next try removes what stays
		return reasonRun, err
	}
	return "", nil
}

// ensureImage returns the container's image, pulled as its policy says.
func (w *worker) ensureImage(ctx context.Context, c *corev1.Container) (*runtimeapi.Image, string, error) {
	spec := &runtimeapi.ImageSpec{Image: c.Image, UserSpecifiedImage: c.Image}
	status, err := w.deps.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return nil, reasonPull, err
	}
	if status.Image != nil && c.ImagePullPolicy != corev1.PullAlways {
		return status.Image, "", nil
	}
	if c.ImagePullPolicy == corev1.PullNever {
		return nil, reasonNeverPull, fmt.Errorf("image %q is not on this node, and may not be pulled: %w", c.Image, errs.NotFound)
	}
	w.publish(map[string]waiting{c.Name: {"Pulling", "pulling image " + c.Image}}, "")
	p := w.record.Pod
	if _, err := w.deps.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, SandboxConfig: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
	}}); err != nil {
		return nil, reasonPull, err
	}
	status, err = w.deps.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err == nil && status.Image == nil {
		err = fmt.Errorf("image %q: %w", c.Image, errs.NotFound)
	}
	return status.GetImage(), reasonPull, err
}

// configure makes the container's configuration, and its volumes.
func (w *worker) configure(ctx context.Context, o observed, c *corev1.Container, image *runtimeapi.Image, attempt uint32) (*runtimeapi.ContainerConfig, error) {
	p := w.record.Pod
	if err := podspec.CheckNonRoot(p, c, image); err != nil {
		return nil, err
	}
	volumes, err := prepareVolumes(p, w.store.volumes(string(p.UID)))
	if err != nil {
		return nil, err
	}
	status, err := w.deps.Pods.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: o.sandbox.Id})
	if err != nil {
		return nil, err
	}
	f := podspec.Facts{NodeName: w.deps.NodeName, PodIPs: podIPs(status.GetStatus().GetNetwork())}
	return podspec.Container(p, c, podspec.Input{Attempt: attempt, ImageID: image.Id, Facts: f, NodeMemory: w.deps.NodeMemory, Volumes: volumes})
}

func podIPs(n *runtimeapi.PodSandboxNetworkStatus) []string {
	if n.GetIp() == "" {
		return nil
	}
	ips := []string{n.GetIp()}
	for _, more := range n.GetAdditionalIps() {
		ips = append(ips, more.GetIp())
	}
	return ips
}

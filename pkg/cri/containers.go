package cri

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/pod"
)

// Containers answers the calls about containers.
type Containers struct {
	Service *container.Service
	Pods    *pod.Service
	// Images tell how an image is called now.
	Images interface {
		Get(ref string) (image.Image, error)
	}
}

// CreateContainer makes a container in a ready pod. The pod's own configuration
// counts, not the copy in the request.
func (c *Containers) CreateContainer(ctx context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	id, err := c.Pods.CreateContainer(ctx, r.GetPodSandboxId(), r.GetConfig())
	if errors.Is(err, image.ErrVolume) {
		err = fmt.Errorf("%w: %w", crierrors.ErrImageVolumeMountFailed, err) // CRI wants it at the beginning
	}
	if err != nil {
		return nil, lacking(sentinel(err))
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer lets a created container run.
func (c *Containers) StartContainer(ctx context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	if err := c.Service.Start(ctx, r.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer ends a container, by force after Timeout seconds.
func (c *Containers) StopContainer(ctx context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	err := c.Service.Stop(ctx, r.GetContainerId(), seconds(r.GetTimeout()))
	if err := idempotent(err, missing(c.Service.Get(r.GetContainerId()))); err != nil {
		return nil, err
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// seconds bounds what a client says to what a Duration holds.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), math.MaxInt64/int64(time.Second))) * time.Second
}

// RemoveContainer removes a container, by force where it runs.
func (c *Containers) RemoveContainer(ctx context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	err := c.Service.Remove(ctx, r.GetContainerId())
	if err := idempotent(err, missing(c.Service.Get(r.GetContainerId()))); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// ListContainers lists containers, the newest first.
func (c *Containers) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: c.filtered(r.GetFilter())}, nil
}

func (c *Containers) filtered(f *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	var all []*runtimeapi.Container
	for _, k := range c.Service.List() {
		if item := listed(k); matchesContainer(item, f) {
			all = append(all, item)
		}
	}
	return all
}

// ContainerStatus tells all of one container.
func (c *Containers) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	k, err := c.Service.Get(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: c.status(k)}
	if r.GetVerbose() {
		resp.Info, err = c.verbose(k)
	}
	return resp, err
}

// status adds to a container's status how its image is called now.
func (c *Containers) status(k *container.Container) *runtimeapi.ContainerStatus {
	st := containerStatus(k)
	if i, err := c.Images.Get(k.ImageID); err == nil { // one that has been removed keeps the name that it came with
		st.Image = imageSpec(i, st.Image)
	}
	return st
}

// verbose adds what debugging needs, in the form that crictl's users know.
func (c *Containers) verbose(k *container.Container) (map[string]string, error) {
	info := map[string]any{"sandboxID": k.PodID, "pid": k.Status.PID, "config": k.Config}
	if spec, err := c.Service.Spec(k.ID); err == nil { // a container that is being removed has none any more
		info["runtimeSpec"] = spec
	}
	return verbose(info)
}

// UpdateContainerResources changes limits; fields that are not set stay.
func (c *Containers) UpdateContainerResources(ctx context.Context, r *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	if r.GetLinux() == nil {
		return nil, fmt.Errorf("update of container %s without linux resources: %w", r.GetContainerId(), errs.Invalid)
	}
	if err := c.Service.Update(ctx, r.GetContainerId(), r.GetLinux()); err != nil {
		return nil, lacking(err)
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// ReopenContainerLog follows a rotation of the log.
func (c *Containers) ReopenContainerLog(ctx context.Context, r *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	if err := c.Service.ReopenLog(ctx, r.GetContainerId()); err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// ExecSync runs a command to its end. A timeout of 0 seconds means none; one
// that is reached is an error of kind Timeout, as kubelet's probes expect.
func (c *Containers) ExecSync(ctx context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	result, err := c.Service.Exec(ctx, r.GetContainerId(), r.GetCmd(), seconds(r.GetTimeout()))
	if err != nil {
		return nil, err
	}
	if result.TimedOut {
		return nil, fmt.Errorf("command in container %s ran longer than %s and was killed: %w", r.GetContainerId(), seconds(r.GetTimeout()), errs.Timeout)
	}
	stdout, stderr := fit(result.Stdout, result.Stderr)
	return &runtimeapi.ExecSyncResponse{Stdout: stdout, Stderr: stderr, ExitCode: result.ExitCode}, nil
}

// maxExecOutput is what kubelet's client takes in one message, 16 MiB, less the
// room for the fields' headers and the exit code.
const maxExecOutput = 16<<20 - 64

// fit cuts what a command wrote to what kubelet can receive: CRI wants the rest
// discarded, not an error. Where both streams are long each gets half.
func fit(stdout, stderr []byte) ([]byte, []byte) {
	const half = maxExecOutput / 2
	switch {
	case len(stdout)+len(stderr) <= maxExecOutput:
		return stdout, stderr
	case len(stderr) <= half:
		return stdout[:maxExecOutput-len(stderr)], stderr
	case len(stdout) <= half:
		return stdout, stderr[:maxExecOutput-len(stdout)]
	}
	return stdout[:half], stderr[:half]
}

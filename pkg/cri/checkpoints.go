package cri

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// checkpointTimeout is for callers that leave it to us.
const checkpointTimeout = 10 * time.Minute

// CheckpointContainer writes a running container to an archive.
func (c *Containers) CheckpointContainer(ctx context.Context, r *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	timeout := checkpointTimeout
	switch {
	case r.GetTimeout() < 0:
		return nil, fmt.Errorf("timeout of %d seconds: %w", r.GetTimeout(), errs.Invalid)
	case r.GetTimeout() > 0:
		timeout = seconds(r.GetTimeout())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := c.Service.Checkpoint(ctx, r.GetContainerId(), r.GetLocation()); err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointContainerResponse{}, nil
}

// CheckpointPod writes containers of a pod into a directory. There are no options.
func (p *Pods) CheckpointPod(ctx context.Context, r *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	if err := noOptions(r.GetOptions()); err != nil {
		return nil, err
	}
	if err := p.Service.Checkpoint(ctx, r.GetPodSandboxId(), r.GetOutputPath(), r.GetContainerIds()); err != nil {
		return nil, err
	}
	return &runtimeapi.CheckpointPodResponse{}, nil
}

// RestorePod makes a pod from a checkpoint, whose containers wait for their start.
// There are no options.
func (p *Pods) RestorePod(ctx context.Context, r *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	if err := noOptions(r.GetOptions()); err != nil {
		return nil, err
	}
	id, restored, err := p.Service.Restore(ctx, r.GetCheckpointPath(), r.GetConfig(), r.GetRuntimeHandler(), r.GetContainerConfigs())
	if err != nil {
		return nil, notUs(sentinel(err))
	}
	resp := &runtimeapi.RestorePodResponse{PodSandboxId: id}
	for _, c := range restored {
		resp.RestoredContainers = append(resp.RestoredContainers, &runtimeapi.RestoredContainer{Name: c.Name, ContainerId: c.ID})
	}
	return resp, nil
}

func noOptions(options map[string]string) error {
	for key := range options {
		return fmt.Errorf("checkpoint option %q: there are none: %w", key, errs.Invalid)
	}
	return nil
}

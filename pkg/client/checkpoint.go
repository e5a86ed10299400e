package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// checkpointTimeout bounds a checkpoint and a restore: CRI wants a deadline.
const checkpointTimeout = 10 * time.Minute

// The directory of a checkpoint has what berthd wrote, and the configurations of
// what was checkpointed, which a restore is to be asked with.
const (
	checkpointData    = "checkpoint"
	checkpointConfigs = "pod.json"
)

// configsRecord is pod.json.
type configsRecord struct {
	Version   int             `json:"version"`
	Pod       json.RawMessage `json:"pod"`
	Container json.RawMessage `json:"container"`
}

const configsVersion = 1

// Checkpoint writes a container of `berth run`, with its pod, to a new directory,
// which is not there afterwards where it fails.
func (c *Client) Checkpoint(ctx context.Context, ctr *runtimeapi.Container, dir string) error {
	if ctr.Labels[apiv1.LabelOwner] != apiv1.OwnerRun {
		return fail(errs.Unsupported, "container %s was not made by berth run: its pod is checkpointed by who made it", ctr.GetMetadata().GetName())
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	configs, err := c.configsOf(ctx, ctr)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return fail(errs.Exists, "%s is there already: name a new directory", dir)
	} else if err != nil {
		return err
	}
	data := filepath.Join(dir, checkpointData)
	err = os.Mkdir(data, 0o700)
	if err == nil {
		_, err = c.Runtime.CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{PodSandboxId: ctr.PodSandboxId, OutputPath: data, ContainerIds: []string{ctr.Id}})
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, checkpointConfigs), configs, 0o600)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// configsOf returns pod.json.
func (c *Client) configsOf(ctx context.Context, ctr *runtimeapi.Container) ([]byte, error) {
	pod, err := c.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: ctr.PodSandboxId, Verbose: true})
	if err != nil {
		return nil, err
	}
	st, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ctr.Id, Verbose: true})
	if err != nil {
		return nil, err
	}
	r := configsRecord{Version: configsVersion}
	for info, to := range map[string]*json.RawMessage{pod.Info["info"]: &r.Pod, st.Info["info"]: &r.Container} {
		var verbose struct {
			Config json.RawMessage `json:"config"`
		}
		if err := json.Unmarshal([]byte(info), &verbose); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		*to = verbose.Config
	}
	return json.Marshal(r)
}

// Restore makes a pod with the container of a checkpoint and starts it: it goes on.
// Where it fails nothing is left.
func (c *Client) Restore(ctx context.Context, dir string) (Created, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Created{}, err
	}
	pod, ctr, err := readConfigs(filepath.Join(dir, checkpointConfigs))
	if err != nil {
		return Created{}, err
	}
	if err := c.nameIsFree(ctx, pod.GetMetadata().GetName()); err != nil {
		return Created{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	created := Created{PodUID: newUID()}
	logs, err := c.Admin.OpenLogs(ctx, &apiv1.OpenLogsRequest{PodUid: created.PodUID})
	if err != nil {
		return Created{}, err
	}
	pod.Metadata.Uid, pod.LogDirectory = created.PodUID, logs.Path
	for _, labels := range []map[string]string{pod.Labels, ctr.Labels} {
		labels[apiv1.LabelPodUID] = created.PodUID
	}
	made, err := c.Runtime.RestorePod(ctx, &runtimeapi.RestorePodRequest{
		CheckpointPath: filepath.Join(dir, checkpointData), Config: pod, ContainerConfigs: []*runtimeapi.ContainerConfig{ctr},
	})
	if err == nil && len(made.RestoredContainers) != 1 {
		err = fmt.Errorf("the daemon has restored %d containers instead of one", len(made.RestoredContainers))
	}
	if err != nil {
		c.Discard(ctx, created)
		return Created{}, err
	}
	created.PodID, created.ContainerID = made.PodSandboxId, made.RestoredContainers[0].ContainerId
	return created, c.Start(ctx, created)
}

func readConfigs(path string) (*runtimeapi.PodSandboxConfig, *runtimeapi.ContainerConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var r configsRecord
	pod, ctr := &runtimeapi.PodSandboxConfig{}, &runtimeapi.ContainerConfig{}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, nil, fail(errs.Invalid, "%s: %v", path, err)
	}
	if r.Version != configsVersion {
		return nil, nil, fail(errs.Invalid, "%s is of version %d, this program reads %d", path, r.Version, configsVersion)
	}
	for raw, m := range map[*json.RawMessage]proto.Message{&r.Pod: pod, &r.Container: ctr} {
		if err := protojson.Unmarshal(*raw, m); err != nil {
			return nil, nil, fail(errs.Invalid, "%s: %v", path, err)
		}
	}
	if pod.Metadata == nil || pod.Labels[apiv1.LabelOwner] != apiv1.OwnerRun || ctr.Labels == nil {
		return nil, nil, fail(errs.Invalid, "%s is not of a pod that berth run made", path)
	}
	return pod, ctr, nil
}

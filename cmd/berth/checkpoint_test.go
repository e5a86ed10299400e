package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// fakeCheckpoints is the daemon with checkpoints, which hold ids alone.
type fakeCheckpoints struct{ *fakeDaemon }

// verbose is what the daemon adds to a status.
func verbose(asked bool, config proto.Message) map[string]string {
	if !asked {
		return nil
	}
	raw, err := protojson.Marshal(config)
	if err != nil {
		return nil
	}
	return map[string]string{"info": `{"pid":1,"config":` + string(raw) + `}`}
}

func (d fakeCheckpoints) CheckpointPod(ctx context.Context, r *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	defer d.lock("CheckpointPod")()
	if _, bounded := ctx.Deadline(); !bounded || d.waitError != nil {
		return nil, errs.Unsupported
	}
	return &runtimeapi.CheckpointPodResponse{}, os.WriteFile(filepath.Join(r.OutputPath, "dump"), []byte(strings.Join(r.ContainerIds, " ")), 0o600)
}

func (d fakeCheckpoints) RestorePod(ctx context.Context, r *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	if _, err := os.ReadFile(filepath.Join(r.CheckpointPath, "dump")); err != nil {
		return nil, errs.Invalid
	}
	p, err := d.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: r.Config})
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.RestorePodResponse{PodSandboxId: p.PodSandboxId}
	for _, c := range r.ContainerConfigs {
		made, err := d.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.PodSandboxId, Config: c})
		if err != nil {
			return nil, err
		}
		resp.RestoredContainers = append(resp.RestoredContainers, &runtimeapi.RestoredContainer{Name: c.Metadata.Name, ContainerId: made.ContainerId})
	}
	return resp, nil
}

func TestACheckpointIsRestoredUnderTheSameName(t *testing.T) {
	d, dir := startDaemon(t), filepath.Join(t.TempDir(), "dump")
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	if got := d.ok(t, "checkpoint", "web", "--to", dir); got != "web\n" {
		t.Errorf("checkpoint: %q", got)
	}
	if got := d.fails(t, "checkpoint", "web", "--to", dir); !strings.Contains(got, "is there already") {
		t.Errorf("checkpoint over another: %s", got)
	}
	if got := d.fails(t, "restore", dir); !strings.Contains(got, "the name \"web\" is taken") {
		t.Errorf("restore beside it: %s", got)
	}
	var old string
	for _, p := range d.pods {
		old = p.Metadata.Uid
	}
	d.ok(t, "rm", "-f", "web")
	d.ok(t, "restore", dir)
	if len(d.pods) != 1 || len(d.containers) != 1 {
		t.Fatalf("%d pods, %d containers", len(d.pods), len(d.containers))
	}
	for _, p := range d.pods {
		uid := p.Metadata.Uid
		if uid == old || p.Labels[apiv1.LabelPodUID] != uid || p.LogDirectory == "" || p.Metadata.Name != "web" {
			t.Errorf("pod %v, was %s", p, old)
		}
	}
	for _, c := range d.containers {
		if c.status.State != runtimeapi.ContainerState_CONTAINER_RUNNING || !slices.Equal(c.line(), []string{"sleep", "1d"}) {
			t.Errorf("container %v", c.status)
		}
	}
}

func TestAFailedCheckpointLeavesNoDirectory(t *testing.T) {
	d, dir := startDaemon(t), filepath.Join(t.TempDir(), "dump")
	d.ok(t, "run", "-q", "-d", "--name", "web", "busybox", "sleep", "1d")
	d.waitError = errs.Unsupported
	d.fails(t, "checkpoint", "web", "--to", dir)
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is there")
	}
	for _, c := range d.containers {
		delete(c.status.Labels, apiv1.LabelOwner)
	}
	if got := d.fails(t, "checkpoint", "web", "--to", dir); !strings.Contains(got, "was not made by berth run") {
		t.Errorf("kubelet's: %s", got)
	}
	if got := d.fails(t, "checkpoint", "web"); !strings.Contains(got, "to") {
		t.Errorf("without --to: %s", got)
	}
}

func TestARestoreOfSomethingElseIsRefused(t *testing.T) {
	d, dir := startDaemon(t), t.TempDir()
	d.fails(t, "restore", dir)
	for content, want := range map[string]string{
		"x": "invalid character", `{"version":7}`: "version 7", `{"version":1,"pod":{"metadata":{}},"container":{}}`: "not of a pod that berth run made",
		`{"version":1,"pod":{"x":1},"container":{}}`: "unknown field",
	} {
		if err := os.WriteFile(filepath.Join(dir, "pod.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := d.fails(t, "restore", dir); !strings.Contains(got, want) {
			t.Errorf("%s: %s", content, got)
		}
	}
	if len(d.pods) != 0 {
		t.Errorf("%d pods", len(d.pods))
	}
}

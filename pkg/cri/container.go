package cri

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
)

func matchesContainer(c *runtimeapi.Container, f *runtimeapi.ContainerFilter) bool {
	return strings.HasPrefix(c.Id, f.GetId()) &&
		strings.HasPrefix(c.PodSandboxId, f.GetPodSandboxId()) &&
		(f.GetState() == nil || f.GetState().GetState() == c.State) &&
		matchesLabels(c.Labels, f.GetLabelSelector())
}

// containerStates maps ours to CRI's. What ended while nobody looked has ended.
var containerStates = map[container.State]runtimeapi.ContainerState{
	container.Created: runtimeapi.ContainerState_CONTAINER_CREATED,
	container.Running: runtimeapi.ContainerState_CONTAINER_RUNNING,
	container.Exited:  runtimeapi.ContainerState_CONTAINER_EXITED,
}

func listed(c *container.Container) *runtimeapi.Container {
	return &runtimeapi.Container{
		Id: c.ID, PodSandboxId: c.PodID, Metadata: c.Config.GetMetadata(), Image: c.Config.GetImage(), ImageRef: c.ImageID, ImageId: c.ImageID,
		State: containerStates[c.Status.State], CreatedAt: c.CreatedAt.UnixNano(), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
	}
}

func containerStatus(c *container.Container) *runtimeapi.ContainerStatus {
	st := c.Status
	return &runtimeapi.ContainerStatus{
		Id: c.ID, Metadata: c.Config.GetMetadata(), State: containerStates[st.State],
		CreatedAt: c.CreatedAt.UnixNano(), StartedAt: nanoseconds(st.StartedAt), FinishedAt: nanoseconds(st.FinishedAt),
		ExitCode: st.ExitCode, Image: c.Config.GetImage(), ImageRef: c.ImageID, ImageId: c.ImageID, Reason: st.Reason, Message: st.Message,
		Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(), Mounts: mounts(c), LogPath: c.LogPath,
		Resources: &runtimeapi.ContainerResources{Linux: st.Resources}, User: c.User, StopSignal: c.StopSignal,
	}
}

// mounts are as they were asked for, those of images with what they turned out to
// be.
func mounts(c *container.Container) []*runtimeapi.Mount {
	if len(c.VolumeImages) == 0 {
		return c.Config.GetMounts()
	}
	out := slices.Clone(c.Config.GetMounts())
	for n, id := range c.VolumeImages {
		m := proto.CloneOf(out[n])
		m.Image.ImageRef, m.Readonly = id, true
		out[n] = m
	}
	return out
}

// nanoseconds is 0 for a time that has not come, as CRI says "not specified".
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// verbose returns the one entry that crictl's users look into.
func verbose(info map[string]any) (map[string]string, error) {
	for name, value := range info {
		if m, ok := value.(proto.Message); ok {
			raw, err := protojson.Marshal(m)
			if err != nil {
				return nil, err
			}
			info[name] = json.RawMessage(raw)
		}
	}
	return texts(map[string]any{"info": info})
}

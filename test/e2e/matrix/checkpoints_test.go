package matrix

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// On a machine where CRIU does not work the right call is refused too, and leaves
// nothing: test/vm has one where it does.
var checkpointRows = map[string]row{
	"CheckpointContainer": {answers: codes.Unimplemented, make: func(t *testing.T) call {
		x, to := look(t), filepath.Join(t.TempDir(), "checkpoint.tar")
		r := &cri.CheckpointContainerRequest{ContainerId: x.container, Location: to}
		return call{request: r, effect: func(*testing.T, []reply) {}}
	}, wrong: slices.Concat(ids("container", setDumped), []wrong{
		several("container", containerIDs, setDumped),
		bad("no location", codes.InvalidArgument, func(r *cri.CheckpointContainerRequest) { r.Location = "" }),
		bad("a relative location", codes.InvalidArgument, func(r *cri.CheckpointContainerRequest) { r.Location = "checkpoint.tar" }),
		bad("a negative timeout", codes.InvalidArgument, func(r *cri.CheckpointContainerRequest) { r.Timeout = -1 }),
	})},
	"CheckpointPod": {answers: codes.Unimplemented, make: func(t *testing.T) call {
		x, to := look(t), t.TempDir()
		r := &cri.CheckpointPodRequest{PodSandboxId: x.pod, OutputPath: to, ContainerIds: []string{x.container}}
		return call{request: r, effect: func(*testing.T, []reply) {}}
	}, wrong: slices.Concat(ids("pod", setPodDumped), []wrong{
		several("pod", podIDs, setPodDumped),
		bad("a relative directory", codes.InvalidArgument, func(r *cri.CheckpointPodRequest) { r.OutputPath = "here" }),
		bad("a directory that is not empty", codes.InvalidArgument, func(r *cri.CheckpointPodRequest) { r.OutputPath = "/etc" }),
		bad("no containers", codes.InvalidArgument, func(r *cri.CheckpointPodRequest) { r.ContainerIds = nil }),
		bad("an unknown container", codes.InvalidArgument, func(r *cri.CheckpointPodRequest) { r.ContainerIds = []string{"x"} }),
		bad("a container twice", codes.InvalidArgument, func(r *cri.CheckpointPodRequest) {
			r.ContainerIds = append(r.ContainerIds, r.ContainerIds[0])
		}),
		bad("an option", codes.InvalidArgument, func(r *cri.CheckpointPodRequest) { r.Options = map[string]string{"leave-running": "true"} }),
	})},
	"RestorePod": {answers: codes.Unimplemented, make: func(t *testing.T) call {
		c := newPod(t)
		r := &cri.RestorePodRequest{CheckpointPath: t.TempDir(), Config: c, ContainerConfigs: []*cri.ContainerConfig{newContainer(c)}}
		return call{request: r, effect: func(*testing.T, []reply) {}}
	}, wrong: slices.Concat([]wrong{
		bad("nothing", codes.InvalidArgument, func(r *cri.RestorePodRequest) { r.Config = nil }),
		bad("no name", codes.InvalidArgument, func(r *cri.RestorePodRequest) { r.Config.Metadata.Name = "" }),
		bad("a host name of two lines", codes.InvalidArgument, func(r *cri.RestorePodRequest) { r.Config.Hostname = strings.Repeat("a\n", 2) }),
		bad("an unknown handler", codes.NotFound, func(r *cri.RestorePodRequest) { r.RuntimeHandler = "kata" }),
		bad("an option", codes.InvalidArgument, func(r *cri.RestorePodRequest) { r.Options = map[string]string{"tcp": "true"} }),
	})},
}

func setDumped(r *cri.CheckpointContainerRequest, id string) { r.ContainerId = id }
func setPodDumped(r *cri.CheckpointPodRequest, id string)    { r.PodSandboxId = id }

package matrix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var containerRows = map[string]row{
	"CreateContainer": {make: func(t *testing.T) call {
		x := ready(t)
		r := &cri.CreateContainerRequest{PodSandboxId: x.pod, Config: newContainer(x.config), SandboxConfig: x.config}
		return call{request: r, effect: func(t *testing.T, replies []reply) {
			all, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: x.pod}})
			if must(t, err); len(all.Containers) != 1 || all.Containers[0].State != cri.ContainerState_CONTAINER_CREATED {
				t.Fatalf("containers %v", all.Containers)
			}
			for _, r := range replies {
				if id := the[*cri.CreateContainerResponse](r).ContainerId; id != all.Containers[0].Id {
					t.Errorf("container %s, one was answered %s", all.Containers[0].Id, id)
				}
			}
		}}
	}, wrong: slices.Concat(ids("pod", setCreatedIn), []wrong{several("pod", podIDs, setCreatedIn)}, wrongContainers, wrongMounts, wrongSecurity, wrongLimits)},
	"StartContainer": {make: func(t *testing.T) call {
		x := created(t)
		return call{request: &cri.StartContainerRequest{ContainerId: x.container}, effect: func(t *testing.T, _ []reply) {
			if s := x.status(t); s.State != cri.ContainerState_CONTAINER_RUNNING {
				t.Errorf("it is %s: %s", s.State, s.Message)
			}
			eventually(t, func() error { return x.wrote("started") })
		}}
	}, wrong: append(ids("container", setStarted), several("container", containerIDs, setStarted))},
	"StopContainer": {make: func(t *testing.T) call {
		x := running(t)
		return call{request: &cri.StopContainerRequest{ContainerId: x.container, Timeout: 20}, effect: func(t *testing.T, _ []reply) {
			if s := x.status(t); s.State != cri.ContainerState_CONTAINER_EXITED || s.ExitCode != 0 || s.Reason != "Completed" {
				t.Errorf("it is %s: %d, %s %s", s.State, s.ExitCode, s.Reason, s.Message)
			}
		}}
	}, wrong: append(lenient("container", setEnded), several("container", containerIDs, setEnded))},
	"RemoveContainer": {make: func(t *testing.T) call {
		x := running(t)
		return call{request: &cri.RemoveContainerRequest{ContainerId: x.container}, effect: func(t *testing.T, _ []reply) {
			if slices.Contains(containerIDs(t), x.container) {
				t.Error("it is there")
			}
		}}
	}, wrong: append(lenient("container", setGone), several("container", containerIDs, setGone))},
	"UpdateContainerResources": {make: func(t *testing.T) call {
		x := running(t)
		r := &cri.UpdateContainerResourcesRequest{ContainerId: x.container, Linux: &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 77}}
		return call{request: r, effect: func(t *testing.T, _ []reply) {
			if l := x.status(t).GetResources().GetLinux(); l.GetMemoryLimitInBytes() != 64<<20 || l.GetCpuShares() != 77 {
				t.Errorf("limits %v", l)
			}
		}}
	}, wrong: slices.Concat(ids("container", setLimited), []wrong{several("container", containerIDs, setLimited)}, wrongUpdates)},
	"ReopenContainerLog": {make: func(t *testing.T) call {
		x := running(t)
		must(t, os.Rename(x.log(), x.log()+".1"))
		return call{request: &cri.ReopenContainerLogRequest{ContainerId: x.container}, effect: func(t *testing.T, _ []reply) {
			if info, err := os.Stat(x.log()); err != nil || info.Size() != 0 {
				t.Errorf("the new log: %v, %v", info, err)
			}
		}}
	}, wrong: append(ids("container", setReopened), several("container", containerIDs, setReopened))},
	"ExecSync": {make: func(t *testing.T) call {
		x := running(t)
		r := &cri.ExecSyncRequest{ContainerId: x.container, Cmd: []string{"/bin/sh", "-c", "echo said; exit 3"}, Timeout: 20}
		return call{request: r, effect: func(t *testing.T, replies []reply) {
			for _, r := range replies {
				if e := the[*cri.ExecSyncResponse](r); e.ExitCode != 3 || string(e.Stdout) != "said\n" || len(e.Stderr) > 0 {
					t.Errorf("got %v", e)
				}
			}
			eventually(t, func() error { return x.alone(t) })
		}}
	}, wrong: slices.Concat(ids("container", setExecuted), []wrong{
		several("container", containerIDs, setExecuted),
		bad("no command", codes.InvalidArgument, func(r *cri.ExecSyncRequest) { r.Cmd = nil }),
		bad("a command with zero in it", codes.InvalidArgument, func(r *cri.ExecSyncRequest) { r.Cmd = []string{"/bin/echo", "a\x00b"} }),
		bad("a command that is not there", codes.InvalidArgument, func(r *cri.ExecSyncRequest) { r.Cmd = []string{"/nothing"} }),
		bad("an empty command", codes.InvalidArgument, func(r *cri.ExecSyncRequest) { r.Cmd = []string{""} }),
		bad("a directory as command", codes.InvalidArgument, func(r *cri.ExecSyncRequest) { r.Cmd = []string{"/bin"} }),
		bad("one that is over", codes.DeadlineExceeded, func(r *cri.ExecSyncRequest) { r.Cmd, r.Timeout = []string{"sleep", "100"}, 1 }),
	})},
}

// alone tells whether there is no process in the container but its own two.
func (x things) alone(t *testing.T) error {
	r, err := berth.Runtime.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: x.container, Cmd: []string{"/bin/ps", "-o", "args"}})
	if err != nil {
		return err
	}
	if lines := strings.Split(strings.TrimSpace(string(r.Stdout)), "\n"); len(lines) != 4 { // a header, the shell, its sleep, ps
		return fmt.Errorf("the container has %q", lines)
	}
	return nil
}

func setCreatedIn(r *cri.CreateContainerRequest, id string)        { r.PodSandboxId = id }
func setStarted(r *cri.StartContainerRequest, id string)           { r.ContainerId = id }
func setEnded(r *cri.StopContainerRequest, id string)              { r.ContainerId = id }
func setGone(r *cri.RemoveContainerRequest, id string)             { r.ContainerId = id }
func setLimited(r *cri.UpdateContainerResourcesRequest, id string) { r.ContainerId = id }
func setReopened(r *cri.ReopenContainerLogRequest, id string)      { r.ContainerId = id }
func setExecuted(r *cri.ExecSyncRequest, id string)                { r.ContainerId = id }

func badUpdate(what string, code codes.Code, change func(*cri.LinuxContainerResources)) wrong {
	return bad(what, code, func(r *cri.UpdateContainerResourcesRequest) { change(r.Linux) })
}

var wrongUpdates = []wrong{
	bad("nothing", codes.InvalidArgument, func(r *cri.UpdateContainerResourcesRequest) { r.Linux = nil }),
	badUpdate("less memory than none", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.MemoryLimitInBytes = -7 }),
	badUpdate("less swap than memory", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.MemorySwapLimitInBytes = 1 << 20 }),
	badUpdate("negative shares", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.CpuShares = -1 }),
	badUpdate("a negative period", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.CpuPeriod = -1 }),
	badUpdate("a period that the kernel does not take", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.CpuPeriod, l.CpuQuota = 1, 1 }),
	badUpdate("a processor that is not there", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.CpusetCpus = "999" }),
	badUpdate("processors that are none", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.CpusetCpus = "a-b" }),
	badUpdate("memory nodes that are none", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.CpusetMems = "\n" }),
	badUpdate("huge pages of no size", codes.FailedPrecondition, func(l *cri.LinuxContainerResources) {
		l.HugepageLimits = []*cri.HugepageLimit{{PageSize: "3KB", Limit: 1}}
	}),
	badUpdate("a file outside as unified", codes.InvalidArgument, func(l *cri.LinuxContainerResources) { l.Unified = map[string]string{"../x": "1"} }),
}

var containerReads = map[string]row{
	"ListContainers": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		f := &cri.ContainerFilter{Id: x.container[:20], PodSandboxId: x.pod, State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}
		return &cri.ListContainersRequest{Filter: f}, func(t *testing.T, r reply) {
			if l := the[*cri.ListContainersResponse](r).Containers; len(l) != 1 || l[0].Id != x.container {
				t.Errorf("got %v", l)
			}
		}
	}, nothingWrong(fitsNothing)),
	"StreamContainers": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.StreamContainersRequest{Filter: &cri.ContainerFilter{Id: x.container}}, func(t *testing.T, r reply) {
			if l := the[*cri.StreamContainersResponse](r).Containers; len(r) != 1 || len(l) != 1 || l[0].Id != x.container {
				t.Errorf("got %v", r)
			}
		}
	}, nothingWrong(fitsNothing)),
	"ContainerStatus": asks(func(t *testing.T) (proto.Message, func(*testing.T, reply)) {
		x := look(t)
		return &cri.ContainerStatusRequest{ContainerId: x.container, Verbose: true}, func(t *testing.T, r reply) {
			s := the[*cri.ContainerStatusResponse](r)
			if s.GetStatus().GetId() != x.container || s.Status.State != cri.ContainerState_CONTAINER_RUNNING || s.Info["info"] == "" {
				t.Errorf("got %v", s)
			}
		}
	}, nil, append(ids("container", setAsked), several("container", containerIDs, setAsked))...),
}

func setAsked(r *cri.ContainerStatusRequest, id string) { r.ContainerId = id }

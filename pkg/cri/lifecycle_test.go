package cri_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

func TestAPodLivesFromRunToRemove(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	id := k.start(podID, "c")

	st := k.status(id)
	want := &runtimeapi.ContainerStatus{
		Id: id, Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
		CreatedAt: st.Status.CreatedAt, StartedAt: st.Status.StartedAt,
		Image: k.asked(appName), ImageRef: k.image, ImageId: k.image,
		Labels: map[string]string{"name": "c"}, Annotations: map[string]string{"odd": "\t\n"}, LogPath: filepath.Join(k.logs, "c.log"),
		Resources:  &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpuShares: 512}},
		User:       &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 1000, SupplementalGroups: st.Status.User.GetLinux().GetSupplementalGroups()}},
		StopSignal: runtimeapi.Signal_SIGNAL_SIGQUIT,
	}
	if diff := cmp.Diff(want, st.Status, protocmp.Transform()); diff != "" || st.Status.StartedAt < st.Status.CreatedAt || st.Status.CreatedAt == 0 {
		t.Error(diff)
	}
	for _, part := range []string{`"sandboxID":"` + podID, `"pid":`, `"runtimeSpec":{`, `"ociVersion"`} {
		if !strings.Contains(st.Info["info"], part) {
			t.Errorf("info without %s: %s", part, st.Info["info"])
		}
	}

	p, err := k.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID[:10], Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if p.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY || p.Status.Network.Ip != "10.1.2.3" || p.Timestamp == 0 || p.Info["info"] == "" {
		t.Errorf("pod: %v", p)
	}
	if diff := cmp.Diff([]*runtimeapi.ContainerStatus{want}, p.ContainersStatuses, protocmp.Transform()); diff != "" {
		t.Errorf("the pod's containers: %s", diff)
	}

	for range 2 { // each is idempotent
		_, err = k.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id})
		wantCode(t, "stop", err, codes.OK)
	}
	if st := k.status(id).Status; st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 137 || st.FinishedAt < st.StartedAt || st.Reason != "Error" {
		t.Errorf("after Stop: %v", st)
	}
	for range 2 {
		_, err = k.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
		wantCode(t, "remove", err, codes.OK)
	}
	_, err = k.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	wantCode(t, "status of a removed container", err, codes.NotFound)
	for range 2 {
		_, err = k.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID})
		wantCode(t, "stop pod", err, codes.OK)
	}
	for range 2 {
		_, err = k.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: podID})
		wantCode(t, "remove pod", err, codes.OK)
	}
	_, err = k.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID})
	wantCode(t, "status of a removed pod", err, codes.NotFound)
}

func TestKubeletMayTellAPodsResources(t *testing.T) {
	k := newKubelet(t)
	for id, want := range map[string]codes.Code{k.run("p"): codes.OK, "absent": codes.NotFound} {
		_, err := k.UpdatePodSandboxResources(t.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: id})
		wantCode(t, "resources of a pod", err, want)
	}
}

func TestListsAreNewestFirstAndCarryEverything(t *testing.T) {
	k := newKubelet(t)
	first, second := k.run("first"), k.run("second")
	a, b := k.start(first, "a"), k.start(second, "b")
	k.runtime.Exit(a, 0, false)
	await(t, func() bool { return k.status(a).Status.State == runtimeapi.ContainerState_CONTAINER_EXITED })

	ids := func(f *runtimeapi.ContainerFilter) (ids []string) {
		resp, err := k.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{Filter: f})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range resp.Containers {
			ids = append(ids, c.Id)
			if c.Annotations["odd"] != "\t\n" || c.Image.UserSpecifiedImage != appName || c.ImageId != k.image || c.ImageRef != k.image || c.CreatedAt == 0 {
				t.Errorf("listed: %v", c)
			}
		}
		return ids
	}
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	for name, c := range map[string]struct {
		filter *runtimeapi.ContainerFilter
		want   []string
	}{
		"all":     {nil, []string{b, a}},
		"running": {&runtimeapi.ContainerFilter{State: running}, []string{b}},
		"pod":     {&runtimeapi.ContainerFilter{PodSandboxId: first}, []string{a}},
		"id":      {&runtimeapi.ContainerFilter{Id: a[:12]}, []string{a}},
		"label":   {&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"name": "b"}}, []string{b}},
		"nothing": {&runtimeapi.ContainerFilter{Id: "x"}, nil},
	} {
		if diff := cmp.Diff(c.want, ids(c.filter)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	resp, err := k.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"all": "1"}}})
	if err != nil || len(resp.Items) != 2 || resp.Items[0].Id != second || resp.Items[1].Annotations["odd"] != "\t\n" {
		t.Errorf("pods: %v, %v", resp, err)
	}
}

// await polls until ok, for five seconds.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

func TestRequestsWithoutAnythingAreRefused(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	ctx := t.Context()
	_, err := k.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{})
	wantCode(t, "run", err, codes.InvalidArgument)
	_, err = k.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{}})
	wantCode(t, "run without metadata", err, codes.InvalidArgument)
	_, err = k.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: k.podConfig("q"), RuntimeHandler: "kata"})
	wantCode(t, "run with an unknown handler", err, codes.NotFound)
	_, err = k.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: podID})
	wantCode(t, "create", err, codes.InvalidArgument)
	_, err = k.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: podID, Config: &runtimeapi.ContainerConfig{}})
	wantCode(t, "create without metadata", err, codes.InvalidArgument)
	_, err = k.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{Config: k.containerConfig("c")})
	wantCode(t, "create without a pod", err, codes.NotFound)
	_, err = k.StartContainer(ctx, &runtimeapi.StartContainerRequest{})
	wantCode(t, "start", err, codes.NotFound)
	_, err = k.ExecSync(ctx, &runtimeapi.ExecSyncRequest{})
	wantCode(t, "exec", err, codes.NotFound)
	_, err = k.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{})
	wantCode(t, "update", err, codes.InvalidArgument)
	_, err = k.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{})
	wantCode(t, "update no pod", err, codes.NotFound)
	_, err = k.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{})
	wantCode(t, "reopen", err, codes.NotFound)
	_, err = k.PullImage(ctx, &runtimeapi.PullImageRequest{})
	wantCode(t, "pull", err, codes.InvalidArgument)
	_, err = k.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: appName, RuntimeHandler: "kata"}})
	wantCode(t, "pull for an unknown handler", err, codes.NotFound)
	_, err = k.CheckpointPod(ctx, &runtimeapi.CheckpointPodRequest{})
	wantCode(t, "checkpoint no pod", err, codes.NotFound)
	if _, err := k.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{}); err != nil { // not the only pod that there is
		t.Error(err)
	}
	if p, err := k.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID}); err != nil || p.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the pod is not ready any more: %v, %v", p, err)
	}
}

func TestThePodsOwnConfigurationCounts(t *testing.T) {
	k := newKubelet(t)
	other := k.podConfig("other")
	other.LogDirectory, other.Hostname = "relative", "other"
	r := &runtimeapi.CreateContainerRequest{PodSandboxId: k.run("p"), Config: k.containerConfig("c"), SandboxConfig: other}
	c, err := k.CreateContainer(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if st := k.status(c.ContainerId); st.Status.LogPath != filepath.Join(k.logs, "c.log") || strings.Contains(st.Info["info"], "HOSTNAME=other") {
		t.Errorf("got %v", st)
	}
}

func TestExecSyncAnswersByItsEnd(t *testing.T) {
	k := newKubelet(t)
	id := k.start(k.run("p"), "c")
	k.runtime.OnExec = func(r runtime.ExecRequest) (runtime.ExecResult, error) {
		if r.Process.Args[0] == "slow" {
			return runtime.ExecResult{TimedOut: r.Timeout == 2*time.Second, ExitCode: 137}, nil
		}
		return runtime.ExecResult{Stdout: []byte("out"), Stderr: []byte("err"), ExitCode: 3}, nil
	}
	resp, err := k.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"x"}})
	if err != nil || string(resp.Stdout) != "out" || string(resp.Stderr) != "err" || resp.ExitCode != 3 {
		t.Errorf("got %v, %v", resp, err)
	}
	_, err = k.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"slow"}, Timeout: 2})
	wantCode(t, "timed out", err, codes.DeadlineExceeded)
	_, err = k.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id})
	wantCode(t, "no command", err, codes.InvalidArgument)
}

func TestAStopThatFailsIsNotTakenForOneOfNothing(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	k.network.detach = fmt.Errorf("plugin bridge: %w", errs.NotFound)
	_, err := k.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID})
	wantCode(t, "stop without the plugin", err, codes.Unknown)
	_, err = k.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: podID})
	wantCode(t, "remove without the plugin", err, codes.Unknown)
	k.network.detach = errors.New("refused")
	_, err = k.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID})
	wantCode(t, "stop", err, codes.Unknown)
	k.network.detach = nil
	_, err = k.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: podID})
	wantCode(t, "remove in the end", err, codes.OK)
}

func TestAFailedNetworkIsNotOurOwnUnavailability(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	k.network.attach = fmt.Errorf("plugin bridge: %w", errs.Unavailable)
	k.network.detach = k.network.attach
	_, err := k.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: podID})
	wantCode(t, "stop", err, codes.Unknown)
	_, err = k.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: podID})
	wantCode(t, "remove", err, codes.Unknown)
	k.network.detach = nil
	_, err = k.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: k.podConfig("q")})
	wantCode(t, "run", err, codes.Unknown)
	if !strings.Contains(err.Error(), "plugin bridge") {
		t.Errorf("got %v", err)
	}
}

func TestUpdateIsSeenInTheStatus(t *testing.T) {
	k := newKubelet(t)
	id := k.start(k.run("p"), "c")
	_, err := k.UpdateContainerResources(t.Context(), &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := k.status(id).Status.Resources.Linux; r.MemoryLimitInBytes != 64<<20 || r.CpuShares != 512 {
		t.Errorf("resources: %v", r)
	}
	if got := k.runtime.Updates(id); len(got) != 1 {
		t.Errorf("the runtime heard %v", got)
	}
}

func TestResourcesOfAPodAreShown(t *testing.T) {
	k := newKubelet(t)
	podID := k.run("p")
	limits := &runtimeapi.LinuxContainerResources{CpuShares: 777}
	_, err := k.UpdatePodSandboxResources(t.Context(), &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: podID, Overhead: limits, Resources: limits})
	wantCode(t, "update", err, codes.OK)
	p, err := k.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: podID, Verbose: true})
	if err != nil || strings.Count(p.Info["info"], `"777"`) != 2 {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestImagesAreKnownByOneID(t *testing.T) {
	k := newKubelet(t)
	ctx := t.Context()
	for _, ref := range []string{appName, k.image, strings.TrimPrefix(k.image, "sha256:")} {
		resp, err := k.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}, Verbose: true})
		if err != nil || resp.Image.GetId() != k.image || resp.Image.Size == 0 || resp.Image.Uid.GetValue() != 1000 || len(resp.Image.RepoTags) != 1 {
			t.Errorf("%s: %v, %v", ref, resp, err)
		}
		if !strings.Contains(resp.GetInfo()["info"], `"imageSpec":{`) {
			t.Errorf("%s: info %v", ref, resp.GetInfo())
		}
	}
	absent, err := k.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "nothing:1"}})
	if err != nil || absent.Image != nil {
		t.Errorf("absent: %v, %v", absent, err)
	}
	for filter, want := range map[string]int{"": 1, appName: 1, "nothing:1": 0} {
		resp, err := k.ListImages(ctx, &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: filter}}})
		if err != nil || len(resp.Images) != want {
			t.Errorf("filter %q: %v, %v", filter, resp, err)
		}
	}
	fs, err := k.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(fs.ImageFilesystems) != 1 || fs.ImageFilesystems[0].UsedBytes.GetValue() == 0 || fs.ImageFilesystems[0].FsId.GetMountpoint() == "" {
		t.Errorf("file system: %v, %v", fs, err)
	}
	if diff := cmp.Diff(fs.GetImageFilesystems(), fs.GetContainerFilesystems(), protocmp.Transform()); diff != "" {
		t.Errorf("containers write to another: %s", diff)
	}
	for range 2 {
		_, err = k.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: appName}})
		wantCode(t, "remove", err, codes.OK)
	}
}

// kubelet with the feature RuntimeClassInImageCriApi tells images apart by name and
// runtime handler, and removes those that no container uses by the same two.
func TestImagesAreListedAndRemovedByRuntimeHandler(t *testing.T) {
	k := newKubelet(t)
	ctx := t.Context()
	handlers := func(filter *runtimeapi.ImageSpec) (list []string) {
		t.Helper()
		resp, err := k.ListImages(ctx, &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: filter}})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range resp.Images {
			list = append(list, i.Id+" "+i.Spec.RuntimeHandler)
		}
		return list
	}
	spec := &runtimeapi.ImageSpec{Image: appName, RuntimeHandler: "berth"}
	if st, err := k.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec}); err != nil || st.Image.GetSpec().GetRuntimeHandler() != "berth" {
		t.Errorf("status: %v, %v", st, err)
	}
	if got := handlers(nil); !slices.Equal(got, []string{k.image + " "}) {
		t.Errorf("loaded: %q", got)
	}
	k.start(k.run("p"), "c") // asks with the handler
	both := []string{k.image + " ", k.image + " berth"}
	if got := handlers(nil); !slices.Equal(got, both) || !slices.Equal(handlers(spec), both[1:]) || !slices.Equal(handlers(&runtimeapi.ImageSpec{RuntimeHandler: "berth"}), both[1:]) {
		t.Errorf("used: %q, %q", got, handlers(spec))
	}
	remove := func(handler string) {
		t.Helper()
		_, err := k.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: k.image, RuntimeHandler: handler}})
		wantCode(t, "remove", err, codes.OK)
	}
	remove("")
	if got := handlers(nil); !slices.Equal(got, both[1:]) {
		t.Errorf("removed for the default one: %q", got)
	}
	remove("berth")
	remove("berth")
	if got := handlers(nil); len(got) != 0 {
		t.Errorf("removed for all: %q", got)
	}
}

func TestARemovedImageKeepsItsContainersName(t *testing.T) {
	k := newKubelet(t)
	id := k.start(k.run("p"), "c")
	for _, handler := range []string{"", "berth"} { // asked names the latter
		if _, err := k.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: appName, RuntimeHandler: handler}}); err != nil {
			t.Fatal(err)
		}
	}
	if resp, err := k.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}); err != nil || len(resp.Images) != 0 {
		t.Errorf("listed: %v, %v", resp, err)
	}
	if st := k.status(id).Status; st.ImageId != k.image || st.Image.UserSpecifiedImage != appName {
		t.Errorf("got %v", st)
	}
}

package manifest

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// fakeCRI keeps pods and containers in memory. calls tells what was asked, in
// words, with the time since it was made.
type fakeCRI struct {
	mu         sync.Mutex
	begin      time.Time
	next       int
	calls      []string
	pods       map[string]*runtimeapi.PodSandbox
	containers map[string]*fakeContainer
	images     map[string]bool
	// fail holds errors of calls by "Verb name".
	fail map[string]error
	// life is how long a container runs and how it ends, by name.
	life map[string]ending
}

type ending struct {
	after time.Duration
	code  int32
}

type fakeContainer struct {
	status *runtimeapi.ContainerStatus
	pod    string
	config *runtimeapi.ContainerConfig
}

func newFakeCRI() *fakeCRI {
	return &fakeCRI{
		begin: time.Now(), pods: map[string]*runtimeapi.PodSandbox{}, containers: map[string]*fakeContainer{},
		images: map[string]bool{}, fail: map[string]error{}, life: map[string]ending{},
	}
}

func (f *fakeCRI) called(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	f.calls = append(f.calls, fmt.Sprintf("%v %s", time.Since(f.begin).Round(time.Second), call))
	return f.fail[call]
}

// log returns the calls so far that contain a word, one a line.
func (f *fakeCRI) log(word string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, c := range f.calls {
		if strings.Contains(c, word) {
			all = append(all, c)
		}
	}
	return strings.Join(all, "\n")
}

func (f *fakeCRI) id(kind string) string {
	f.next++
	return fmt.Sprintf("%s%d", kind, f.next)
}

func (f *fakeCRI) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("RunPod %s", r.Config.Metadata.Name); err != nil {
		return nil, err
	}
	id := f.id("pod")
	f.pods[id] = &runtimeapi.PodSandbox{Id: id, Metadata: r.Config.Metadata, Labels: r.Config.Labels, State: runtimeapi.PodSandboxState_SANDBOX_READY}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (f *fakeCRI) StopPodSandbox(_ context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("StopPod %s", r.PodSandboxId); err != nil {
		return nil, err
	}
	if p := f.pods[r.PodSandboxId]; p != nil {
		p.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	for _, c := range f.containers {
		if c.pod == r.PodSandboxId {
			c.end(137)
		}
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// reboot ends all that runs, as the daemon finds it afterwards.
func (f *fakeCRI) reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pods {
		p.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	for _, c := range f.containers {
		c.end(255)
	}
}

func (f *fakeCRI) RemovePodSandbox(_ context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.called("RemovePod %s", r.PodSandboxId)
	delete(f.pods, r.PodSandboxId)
	maps.DeleteFunc(f.containers, func(_ string, c *fakeContainer) bool { return c.pod == r.PodSandboxId })
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (f *fakeCRI) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &runtimeapi.ListPodSandboxResponse{}
	for _, p := range f.pods {
		if matches(p.Labels, r.Filter.LabelSelector) && (r.Filter.State == nil || r.Filter.State.State == p.State) {
			resp.Items = append(resp.Items, p)
		}
	}
	return resp, nil
}

func (f *fakeCRI) PodSandboxStatus(context.Context, *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.1.2.3"}}}, nil
}

func (f *fakeCRI) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := r.Config.Metadata
	if err := f.called("Create %s %d", m.Name, m.Attempt); err != nil {
		return nil, err
	}
	id := f.id("ctr")
	f.containers[id] = &fakeContainer{pod: r.PodSandboxId, config: r.Config, status: &runtimeapi.ContainerStatus{Id: id, Metadata: m}}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (f *fakeCRI) StartContainer(_ context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[r.ContainerId]
	name := c.status.Metadata.Name
	if err := f.called("Start %s", name); err != nil {
		return nil, err
	}
	c.status.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	if life, ok := f.life[name]; ok {
		time.AfterFunc(life.after, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			c.end(life.code)
		})
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

func (c *fakeContainer) end(code int32) {
	if c.status.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		c.status.State, c.status.ExitCode, c.status.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, time.Now().UnixNano()
	}
}

func (f *fakeCRI) StopContainer(_ context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[r.ContainerId]
	_ = f.called("Stop %s %d", c.status.Metadata.Name, r.Timeout)
	c.end(143)
	return &runtimeapi.StopContainerResponse{}, nil
}

func (f *fakeCRI) RemoveContainer(_ context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[r.ContainerId]; c != nil {
		_ = f.called("Remove %s", c.status.Metadata.Name)
	}
	delete(f.containers, r.ContainerId)
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (f *fakeCRI) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &runtimeapi.ListContainersResponse{}
	for id, c := range f.containers {
		w := r.Filter
		if (w.PodSandboxId == "" || c.pod == w.PodSandboxId) && matches(c.config.Labels, w.LabelSelector) && (w.State == nil || w.State.State == c.status.State) {
			resp.Containers = append(resp.Containers, &runtimeapi.Container{Id: id, PodSandboxId: c.pod, Metadata: c.status.Metadata, State: c.status.State, Labels: c.config.Labels})
		}
	}
	return resp, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[r.ContainerId]
	if c == nil {
		return nil, fmt.Errorf("container: %w", errs.NotFound)
	}
	s := c.status
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, ExitCode: s.ExitCode, FinishedAt: s.FinishedAt, Reason: s.Reason,
	}}, nil
}

func (f *fakeCRI) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.images[r.Image.Image] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "sha256:" + r.Image.Image, Uid: &runtimeapi.Int64Value{}}}, nil
}

func (f *fakeCRI) PullImage(_ context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("Pull %s", r.Image.Image); err != nil {
		return nil, err
	}
	f.images[r.Image.Image] = true
	return &runtimeapi.PullImageResponse{ImageRef: "sha256:" + r.Image.Image}, nil
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// runPodOfRun makes a pod as `berth run` does, whose container ends at once.
func runPodOfRun(t *testing.T, f *fakeCRI, labels map[string]string) {
	t.Helper()
	pod, err := f.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "x"}, Labels: labels,
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctr, err := f.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "x"}, Labels: labels,
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.containers[ctr.ContainerId].end(0)
	f.mu.Unlock()
}

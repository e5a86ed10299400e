package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/edge"
	"github.com/berth-run/berth/pkg/errs"
)

// fakeDaemon answers CRI and the admin API from memory, over a real socket. A
// container's command says what it does: "say TEXT" writes a line to its log
// and ends, "exit N" ends so, "cat" echoes stdin, anything else runs on.
type fakeDaemon struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	dir  string
	host string

	mu         sync.Mutex
	next       int
	pods       map[string]*runtimeapi.PodSandboxConfig
	containers map[string]*fakeContainer
	images     map[string]*runtimeapi.Image
	requests   []string
	manifests  []*apiv1.ManifestStatus
	problems   []*apiv1.Problem
	advice     []*apiv1.Advice
	stop       func() // ends the first server
	waits      chan string
	waitError  error
	archive    bytes.Buffer
}

type fakeContainer struct {
	pod    string
	config *runtimeapi.ContainerConfig
	status *runtimeapi.ContainerStatus
	// started and ended are closed when that happens.
	started, ended chan struct{}
}

func startDaemon(t *testing.T) *fakeDaemon {
	t.Helper()
	dir := t.TempDir()
	d := &fakeDaemon{
		dir: dir, host: "unix://" + filepath.Join(dir, "s"), pods: map[string]*runtimeapi.PodSandboxConfig{},
		containers: map[string]*fakeContainer{}, images: map[string]*runtimeapi.Image{},
	}
	d.stop = d.serve(t)
	t.Cleanup(d.stop)
	return d
}

// serve answers until stop is called, as a daemon that is killed then.
func (d *fakeDaemon) serve(t *testing.T) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(d.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := edge.NewServer(nil)
	runtimeapi.RegisterRuntimeServiceServer(server, fakeCheckpoints{d})
	runtimeapi.RegisterImageServiceServer(server, d)
	apiv1.RegisterAdminServer(server, &fakeAdmin{fakeDaemon: d})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // ends with Stop
	return func() { server.Stop(); serving.Wait() }
}

// berth runs the command line and returns its exit code and output.
func (d *fakeDaemon) berth(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e lockedBuffer
	a := &app{in: strings.NewReader(stdin), out: &o, errOut: &e}
	code = a.main(t.Context(), append([]string{"--host", d.host}, args...))
	return code, o.String(), e.String()
}

// ok runs the command line, which must succeed, and returns what it printed.
func (d *fakeDaemon) ok(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errOut := d.berth(t, "", args...)
	if code != 0 {
		t.Fatalf("berth %s: exit code %d\n%s", strings.Join(args, " "), code, errOut)
	}
	return out
}

// fails runs the command line, which must fail, and returns its complaint.
func (d *fakeDaemon) fails(t *testing.T, args ...string) string {
	t.Helper()
	code, _, errOut := d.berth(t, "", args...)
	if code == 0 {
		t.Fatalf("berth %s succeeded", strings.Join(args, " "))
	}
	return errOut
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (d *fakeDaemon) lock(request string, args ...any) func() {
	d.mu.Lock()
	d.requests = append(d.requests, fmt.Sprintf(request, args...))
	return d.mu.Unlock
}

func (d *fakeDaemon) id() string {
	d.next++
	return fmt.Sprintf("%02x%062d", d.next, 0)
}

func (d *fakeDaemon) addImage(name, id string) {
	d.images[name] = &runtimeapi.Image{Id: id, RepoTags: []string{name}, RepoDigests: []string{strings.Split(name, ":")[0] + "@sha256:dd"}, Size: 4_260_000}
}

func (d *fakeDaemon) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	defer d.lock("RunPodSandbox")()
	id := d.id()
	d.pods[id] = r.Config
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (d *fakeDaemon) StopPodSandbox(context.Context, *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	defer d.lock("StopPodSandbox")()
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (d *fakeDaemon) RemovePodSandbox(_ context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	defer d.lock("RemovePodSandbox")()
	delete(d.pods, r.PodSandboxId)
	maps.DeleteFunc(d.containers, func(_ string, c *fakeContainer) bool { return c.pod == r.PodSandboxId })
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (d *fakeDaemon) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &runtimeapi.ListPodSandboxResponse{}
	for id, p := range d.pods {
		keep := true
		for k, v := range r.GetFilter().GetLabelSelector() {
			keep = keep && p.Labels[k] == v
		}
		if keep {
			resp.Items = append(resp.Items, &runtimeapi.PodSandbox{Id: id, Metadata: p.Metadata, Labels: p.Labels, CreatedAt: time.Now().Add(-time.Minute).UnixNano()})
		}
	}
	return resp, nil
}

func (d *fakeDaemon) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &runtimeapi.PodSandboxStatusResponse{
		Status: &runtimeapi.PodSandboxStatus{Id: r.PodSandboxId, Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.1.0.2"}},
		Info:   verbose(r.Verbose, d.pods[r.PodSandboxId]),
	}, nil
}

func (d *fakeDaemon) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	defer d.lock("CreateContainer")()
	id := d.id()
	d.containers[id] = &fakeContainer{pod: r.PodSandboxId, config: r.Config, started: make(chan struct{}), ended: make(chan struct{}), status: &runtimeapi.ContainerStatus{
		Id: id, Metadata: r.Config.Metadata, CreatedAt: time.Now().Add(-2 * time.Hour).UnixNano(), Image: r.Config.Image, ImageId: r.Config.Image.Image,
		Labels: r.Config.Labels, Annotations: r.Config.Annotations, LogPath: filepath.Join(d.pods[r.PodSandboxId].LogDirectory, r.Config.LogPath),
	}}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (d *fakeDaemon) StartContainer(_ context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	defer d.lock("StartContainer")()
	c := d.containers[r.ContainerId]
	if err := startError(c.line()[0]); err != nil {
		return nil, err
	}
	c.status.State, c.status.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().Add(-time.Hour).UnixNano()
	close(c.started)
	return &runtimeapi.StartContainerResponse{}, c.play()
}

// startError is why some programs do not run.
func startError(program string) error {
	switch program {
	case "missing":
		return fmt.Errorf("exec: \"missing\": executable file not found in $PATH: %w", errs.NoProgram)
	case "odd":
		return fmt.Errorf("exec: \"odd\": permission denied: %w", errs.NoExecutable)
	case "broken":
		return fmt.Errorf("mount: %w", errs.Invalid)
	}
	return nil
}

func (c *fakeContainer) line() []string { return slices.Concat(c.config.Command, c.config.Args) }

func (c *fakeContainer) play() error {
	log, err := os.OpenFile(c.status.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	switch args := c.line(); args[0] {
	case "say":
		fmt.Fprintf(log, "2026-01-02T15:04:05.1Z stdout F %s\n2026-01-02T15:04:06.1Z stderr P err\n2026-01-02T15:04:06.2Z stderr F or\n", args[1])
		c.end(0)
	case "exit":
		var code int32
		_, _ = fmt.Sscan(args[1], &code)
		c.end(code)
	}
	return nil
}

func (c *fakeContainer) end(code int32) {
	if c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
		c.status.State, c.status.ExitCode, c.status.FinishedAt = runtimeapi.ContainerState_CONTAINER_EXITED, code, time.Now().Add(-5*time.Minute).UnixNano()
		close(c.ended)
	}
}

func (d *fakeDaemon) StopContainer(_ context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	defer d.lock("StopContainer %d", r.Timeout)()
	d.containers[r.ContainerId].end(143)
	return &runtimeapi.StopContainerResponse{}, nil
}

func (d *fakeDaemon) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &runtimeapi.ListContainersResponse{}
	for id, c := range d.containers {
		if pod := r.GetFilter().GetPodSandboxId(); pod != "" && pod != c.pod {
			continue
		}
		if state := r.GetFilter().GetState(); state != nil && state.State != c.status.State {
			continue
		}
		resp.Containers = append(resp.Containers, &runtimeapi.Container{
			Id: id, PodSandboxId: c.pod, Metadata: c.status.Metadata, State: c.status.State, CreatedAt: c.status.CreatedAt,
			Image: c.status.Image, ImageId: c.status.ImageId, Labels: c.config.Labels, Annotations: c.config.Annotations,
		})
	}
	return resp, nil
}

func (d *fakeDaemon) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.containers[r.ContainerId]
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", r.ContainerId, errs.NotFound)
	}
	s := c.status
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: s.Id, Metadata: s.Metadata, State: s.State, ExitCode: s.ExitCode, CreatedAt: s.CreatedAt, StartedAt: s.StartedAt,
		FinishedAt: s.FinishedAt, Image: s.Image, ImageId: s.ImageId, Labels: s.Labels, Annotations: s.Annotations, LogPath: s.LogPath, Reason: s.Reason,
	}, Info: verbose(r.Verbose, c.config)}, nil
}

func (d *fakeDaemon) ExecSync(_ context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if err := startError(r.Cmd[0]); err != nil {
		return nil, err
	}
	return &runtimeapi.ExecSyncResponse{Stdout: []byte(strings.Join(r.Cmd, " ") + "\n"), Stderr: []byte("oh\n"), ExitCode: 3}, nil
}

func (d *fakeDaemon) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeApiVersion: "v1"}, nil
}

func (d *fakeDaemon) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Reason: "NetworkPluginNotReady", Message: "no configuration in /etc/cni/net.d"},
	}}}, nil
}

func (d *fakeDaemon) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	resp := &runtimeapi.ListImagesResponse{}
	for _, i := range d.images {
		resp.Images = append(resp.Images, i)
	}
	return resp, nil
}

func (d *fakeDaemon) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	if strings.ToLower(r.Image.Image) != r.Image.Image {
		return nil, fmt.Errorf("image name %q: %w", r.Image.Image, errs.Invalid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: d.images["docker.io/library/"+r.Image.Image+":latest"]}, nil
}

func (d *fakeDaemon) RemoveImage(_ context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	defer d.lock("RemoveImage %s", r.Image.Image)()
	return &runtimeapi.RemoveImageResponse{}, nil
}

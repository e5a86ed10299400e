package cri_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/cri"
	"github.com/berth-run/berth/pkg/edge"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/trust"
	"github.com/berth-run/berth/pkg/network"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/pkg/spec"
	"github.com/berth-run/berth/pkg/stats"
	"github.com/berth-run/berth/test/images"
	"github.com/berth-run/berth/test/testutil"
)

const appName = "example.test/app:1"

// plugins is a network in memory.
type plugins struct{ attach, detach error }

func (p *plugins) Attach(context.Context, network.AttachRequest) (network.Result, error) {
	return network.Result{IPs: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}}, p.attach
}
func (p *plugins) Detach(context.Context, string) error { return p.detach }
func (p *plugins) Loopback(string) error                { return nil }
func (p *plugins) Status(context.Context) error         { return nil }
func (p *plugins) Info() map[string]string              { return nil }

func (p *plugins) SetPodCIDR(context.Context, string) error { return nil }

// kubelet is a client of CRI over a real socket. Behind it are the real
// services, on a runtime and a network in memory.
type kubelet struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient
	t       *testing.T
	runtime *runtimetest.Fake
	network *plugins
	image   string // the id of appName
	logs    string
	policy  string // the file that decides on images

	hierarchy string // what stands for cgroup v2
	collector *stats.Service
	stopping  chan struct{}
	events    *cri.Events
}

func newKubelet(t *testing.T) *kubelet {
	t.Helper()
	testutil.Root(t) // root file systems and shm are mounts
	root, state := t.TempDir(), t.TempDir()
	k := &kubelet{t: t, runtime: &runtimetest.Fake{}, network: &plugins{}, logs: t.TempDir(), hierarchy: t.TempDir(), stopping: make(chan struct{})}
	k.policy = filepath.Join(t.TempDir(), "policy.json")
	k.decide("insecureAcceptAnything")
	store, err := image.Open(t.Context(), image.Options{Root: root, State: state, Signatures: trust.Options{Policy: k.policy}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() }) // nothing is lost
	k.image = load(t, store)
	containers, err := container.Open(container.Deps{
		Root: root, Runtime: k.runtime, Images: store, Handlers: map[string]spec.Options{"": {}, "berth": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := pod.Open(pod.Deps{
		Root: root, State: state, NetNSDir: filepath.Join(state, "netns"), Runtime: k.runtime, Network: k.network, Containers: containers,
		Handlers: []string{"berth"}, CgroupDriver: spec.Cgroupfs,
	})
	if err != nil {
		t.Fatal(err)
	}
	follow(t, containers)
	t.Cleanup(pods.Close)
	c := &cri.Containers{Service: containers, Pods: pods, Images: store}
	server := edge.NewServer(nil)
	k.collector = stats.New(stats.Deps{
		Pods: pods, Containers: containers, Layers: store, Hierarchies: k.cgroups(), CgroupDriver: spec.Cgroupfs, LayerRoot: root, MaxFiles: 100,
	})
	t.Cleanup(k.collector.Close)
	p := &cri.Pods{Service: pods, Containers: c}
	k.events = &cri.Events{Pods: p, Stopping: k.stopping}
	cri.Register(server, cri.Groups{
		Node: &cri.Node{Build: "v1.2.3", Runtime: k.runtime, Network: k.network, CgroupDriver: spec.Cgroupfs},
		Pods: p, Containers: c, Images: &cri.Images{Service: store, Handlers: []string{"berth"}},
		Stats: &cri.Stats{Collector: k.collector}, Events: k.events,
		Streams: serveStreams(t, &cri.Sessions{Containers: containers, Pods: pods, Runtime: k.runtime}),
	})
	k.connect(server)
	t.Cleanup(func() {
		for _, p := range pods.List() {
			if err := pods.Remove(context.Background(), p.ID); err != nil {
				t.Error(err)
			}
		}
		mounts, _ := os.ReadFile("/proc/self/mounts")
		if strings.Contains(string(mounts), state) {
			t.Errorf("mounts are left:\n%s", mounts)
		}
	})
	return k
}

func (k *kubelet) cgroups() *cgroup.Hierarchies {
	return &cgroup.Hierarchies{V2: true, Mounts: map[string]string{"": k.hierarchy}}
}

func load(t *testing.T, store *image.Service) (id string) {
	t.Helper()
	var archive bytes.Buffer
	app := images.Image{
		Config: ispec.ImageConfig{Cmd: []string{"/app"}, User: "1000", StopSignal: "SIGQUIT"},
		Layers: []images.Layer{{Files: []images.File{{Name: "app", Mode: 0o755, Data: []byte("#!")}}}},
	}
	if err := images.Archive(&archive, appName, app); err != nil {
		t.Fatal(err)
	}
	loaded, err := store.Load(t.Context(), &archive)
	if err != nil || len(loaded) != 1 {
		t.Fatalf("load: %v, %v", loaded, err)
	}
	return loaded[0].ID.String()
}

// follow runs what records the ends of containers, until the test ends.
func follow(t *testing.T, containers *container.Service) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- containers.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (k *kubelet) connect(server *grpc.Server) {
	k.t.Helper()
	path := filepath.Join(k.t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		k.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		k.t.Fatal(err)
	}
	k.RuntimeServiceClient, k.ImageServiceClient = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	k.t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			k.t.Error(err)
		}
	})
}

// decide writes a policy with one requirement.
func (k *kubelet) decide(requirement string) {
	k.t.Helper()
	if err := os.WriteFile(k.policy, []byte(`{"default": [{"type": "`+requirement+`"}]}`), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kubelet) podConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name}, LogDirectory: k.logs,
		Labels: map[string]string{"name": name, "all": "1"}, Annotations: map[string]string{"odd": "\t\n"}, Linux: &runtimeapi.LinuxPodSandboxConfig{},
	}
}

// asked is the image of a container as kubelet asks for it.
func (k *kubelet) asked(image string) *runtimeapi.ImageSpec {
	return &runtimeapi.ImageSpec{
		Image: image, UserSpecifiedImage: appName, Annotations: map[string]string{"pulled": "today"}, RuntimeHandler: "berth", ImageRef: k.image,
	}
}

func (k *kubelet) containerConfig(name string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: k.asked(k.image),
		Labels: map[string]string{"name": name}, Annotations: map[string]string{"odd": "\t\n"}, LogPath: name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{CpuShares: 512}},
	}
}

func (k *kubelet) run(name string) string {
	k.t.Helper()
	resp, err := k.RunPodSandbox(k.t.Context(), &runtimeapi.RunPodSandboxRequest{Config: k.podConfig(name)})
	if err != nil {
		k.t.Fatal(err)
	}
	return resp.PodSandboxId
}

func (k *kubelet) start(podID, name string) string {
	k.t.Helper()
	c, err := k.CreateContainer(k.t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: podID, Config: k.containerConfig(name)})
	if err == nil {
		_, err = k.StartContainer(k.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId})
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return c.ContainerId
}

func (k *kubelet) status(id string) *runtimeapi.ContainerStatusResponse {
	k.t.Helper()
	resp, err := k.ContainerStatus(k.t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		k.t.Fatal(err)
	}
	return resp
}

func wantCode(t *testing.T, what string, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

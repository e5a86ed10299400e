package nri_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/nri"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/pkg/spec"
)

// patience bounds every wait of these tests.
const patience = 10 * time.Second

// images has one, "app".
type images struct{ dir string }

func (i images) Get(string) (image.Image, error) {
	return image.Image{
		ID: digest.FromString("config"), Digest: digest.FromString("manifest"),
		Config: ispec.Image{Config: ispec.ImageConfig{Cmd: []string{"/app"}, Env: []string{"KEEP=1", "CHANGE=1", "DROP=1"}}},
	}, nil
}

func (i images) Admit(context.Context, image.Image, string, string) error { return nil }
func (i images) Unmount(context.Context, string) error                    { return nil }
func (i images) Changes(context.Context, string, io.Writer) error         { return nil }

func (i images) Mount(context.Context, image.MountRequest) (string, error) { return i.dir, nil }

func (i images) MountVolumes(context.Context, image.VolumesRequest) ([]image.Volume, error) {
	return nil, image.ErrVolume
}

// podTable is one pod.
type podTable struct{ p *pod.Sandbox }

func (t podTable) List() []*pod.Sandbox { return []*pod.Sandbox{t.p} }

func (t podTable) Get(id string) (*pod.Sandbox, error) {
	if id != t.p.ID {
		return nil, errs.NotFound
	}
	return t.p, nil
}

// node is a Service over containers whose runtime is a fake, with one pod.
type node struct {
	t          *testing.T
	nri        *nri.Service
	containers *container.Service
	runtime    *runtimetest.Fake
	pod        *pod.Sandbox
	socket     string
}

func newNode(t *testing.T, o nri.Options) *node {
	t.Helper()
	n := &node{t: t, runtime: &runtimetest.Fake{}, pod: &pod.Sandbox{
		ID: "pod", Handler: "berth", Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u"}},
	}}
	dir := t.TempDir()
	n.socket = filepath.Join(dir, "nri", "nri.sock")
	if o.Socket == "" {
		o.Socket = n.socket
	}
	o.Version = "test"
	if o.Plugins == "" {
		o.Plugins = filepath.Join(dir, "absent")
	}
	var err error
	if n.nri, err = nri.New(o); err != nil {
		t.Fatal(err)
	}
	pictures := images{t.TempDir()}
	n.containers, err = container.Open(container.Deps{
		Root: t.TempDir(), Runtime: n.runtime, Images: pictures, Handlers: map[string]spec.Options{"": {}}, Plugins: n.nri.Containers(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.nri.Start(nri.Node{Pods: podTable{n.pod}, Containers: n.containers, Images: pictures}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.nri.Run(ctx) })
	running.Go(func() { _ = n.containers.Run(ctx) })
	t.Cleanup(func() {
		n.nri.Close()
		cancel()
		running.Wait()
	})
	return n
}

func config(name string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: "app"},
		Devices: []*cri.Device{{HostPath: "/dev/null", ContainerPath: "/dev/kept"}, {HostPath: "/dev/null", ContainerPath: "/dev/dropped"}},
		Linux:   &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 512}},
	}
}

func (n *node) tryCreate(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return n.containers.Create(ctx, container.Pod{ID: n.pod.ID, Config: n.pod.Config}, config(name))
}

func (n *node) create(name string) string {
	n.t.Helper()
	id, err := n.tryCreate(name)
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

func (n *node) start(id string) {
	n.t.Helper()
	if err := n.containers.Start(n.t.Context(), id); err != nil {
		n.t.Fatal(err)
	}
}

// plugin notes what it is told; the functions that are set do more.
type plugin struct {
	stub.Stub
	name     string
	onCreate func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error)
	onUpdate func(*api.Container, *api.LinuxResources) ([]*api.ContainerUpdate, error)
	onStop   func(*api.Container) []*api.ContainerUpdate
	onStart  func() error
	onRun    func() error
	synced   chan struct{} // closed when it has been told what there is
	closed   chan struct{} // closed when it has been cut off

	mu      sync.Mutex
	heard   []string
	changed chan struct{}
	last    *api.Container
	pod     *api.PodSandbox
}

func (p *plugin) hear(s *api.PodSandbox, c *api.Container, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, fmt.Sprintf(format, args...))
	if c != nil {
		p.last = c
	}
	p.pod = s
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *plugin) told() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.heard, ", ")
}

// await waits until the plugin has heard of something.
func (p *plugin) await(t *testing.T, what string) {
	t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(p.told(), what) {
		select {
		case <-p.changed:
		case <-timeout:
			t.Fatalf("not told of %q but of %s", what, p.told())
		}
	}
}

func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, cs []*api.Container) ([]*api.ContainerUpdate, error) {
	names := []string{}
	for _, c := range cs {
		names = append(names, c.Name+" "+c.State.String())
	}
	slices.Sort(names)
	p.hear(pods[0], nil, "sync %s %q", pods[0].Name, names)
	close(p.synced)
	return nil, nil
}

func (p *plugin) RunPodSandbox(_ context.Context, s *api.PodSandbox) error {
	p.hear(s, nil, "run %s", s.Id)
	if p.onRun != nil {
		return p.onRun()
	}
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, s *api.PodSandbox) error {
	p.hear(s, nil, "stop pod %s", s.Id)
	return nil
}

func (p *plugin) RemovePodSandbox(_ context.Context, s *api.PodSandbox) error {
	p.hear(s, nil, "remove pod %s", s.Id)
	return nil
}

func (p *plugin) UpdatePodSandbox(_ context.Context, s *api.PodSandbox, overhead, r *api.LinuxResources) error {
	p.hear(s, nil, "update pod %d %d", overhead.GetCpu().GetShares().GetValue(), r.GetCpu().GetShares().GetValue())
	return nil
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, s *api.PodSandbox) error {
	p.hear(s, nil, "pod updated")
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, s *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.hear(s, c, "create %s", c.Name)
	if p.onCreate != nil {
		return p.onCreate(c)
	}
	return nil, nil, nil
}

func (p *plugin) PostCreateContainer(_ context.Context, s *api.PodSandbox, c *api.Container) error {
	p.hear(s, c, "created %s", c.Name)
	return nil
}

func (p *plugin) StartContainer(_ context.Context, s *api.PodSandbox, c *api.Container) error {
	p.hear(s, c, "start %s", c.Name)
	if p.onStart != nil {
		return p.onStart()
	}
	return nil
}

func (p *plugin) PostStartContainer(_ context.Context, s *api.PodSandbox, c *api.Container) error {
	p.hear(s, c, "started %s", c.Name)
	return nil
}

func (p *plugin) UpdateContainer(_ context.Context, s *api.PodSandbox, c *api.Container, r *api.LinuxResources) ([]*api.ContainerUpdate, error) {
	p.hear(s, c, "update %s %d", c.Name, r.GetCpu().GetShares().GetValue())
	if p.onUpdate != nil {
		return p.onUpdate(c, r)
	}
	return nil, nil
}

func (p *plugin) PostUpdateContainer(_ context.Context, s *api.PodSandbox, c *api.Container) error {
	p.hear(s, c, "updated %s %d", c.Name, c.Linux.Resources.Cpu.Shares.GetValue())
	return nil
}

func (p *plugin) StopContainer(_ context.Context, s *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.hear(s, c, "stop %s %s", c.Name, c.State)
	if p.onStop != nil {
		return p.onStop(c), nil
	}
	return nil, nil
}

func (p *plugin) RemoveContainer(_ context.Context, s *api.PodSandbox, c *api.Container) error {
	p.hear(s, c, "remove %s", c.Name)
	return nil
}

// dial starts the plugin, which has not yet been told what there is.
func (n *node) dial(p *plugin) {
	n.t.Helper()
	n.dialAs(p, p)
}

// dialAs starts a plugin that is more than p.
func (n *node) dialAs(p *plugin, as stub.Plugin) {
	n.t.Helper()
	p.synced, p.closed, p.changed = make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	if p.name == "" {
		p.name = "test"
	}
	var err error
	p.Stub, err = stub.New(as, stub.WithSocketPath(n.socket), stub.WithPluginName(p.name), stub.WithPluginIdx("10"), stub.WithOnClose(func() { close(p.closed) }))
	if err == nil {
		err = p.Start(context.Background())
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(p.Stop)
}

// connect starts the plugin and waits until it takes part.
func (n *node) connect(p *plugin) *plugin {
	n.t.Helper()
	n.dial(p)
	n.await(p.synced, "the plugin has not been told what there is")
	n.settle()
	return p
}

// settle waits until no plugin is on its way in.
func (n *node) settle() { n.nri.Hold()() }

func (n *node) await(c <-chan struct{}, otherwise string) {
	n.t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		n.t.Fatal(otherwise)
	}
}

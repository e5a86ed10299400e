package pod_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/network"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/runtimetest"
	"github.com/berth-run/berth/pkg/spec"
	"github.com/berth-run/berth/test/testutil"
)

// fakeNetwork remembers who is attached.
type fakeNetwork struct {
	fail error
	hold chan struct{} // Attach waits for it to close, where not nil

	mu       sync.Mutex
	attached map[string]network.AttachRequest
}

func (f *fakeNetwork) Attach(_ context.Context, r network.AttachRequest) (network.Result, error) {
	if f.hold != nil {
		<-f.hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached[r.PodID] = r
	return network.Result{IPs: []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::3")}}, f.fail
}

func (f *fakeNetwork) Detach(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attached, id)
	return nil
}

func (f *fakeNetwork) Loopback(string) error { return nil }

type fakeImages struct{ dir string }

func (f fakeImages) Get(string) (image.Image, error) {
	return image.Image{ID: "sha256:00", Config: ispec.Image{Config: ispec.ImageConfig{Cmd: []string{"/app"}}}}, nil
}

func (f fakeImages) Admit(context.Context, image.Image, string, string) error { return nil }

func (f fakeImages) Mount(context.Context, image.MountRequest) (string, error) { return f.dir, nil }
func (f fakeImages) Unmount(context.Context, string) error                     { return nil }
func (f fakeImages) Changes(context.Context, string, io.Writer) error          { return nil }
func (f fakeImages) MountVolumes(context.Context, image.VolumesRequest) ([]image.Volume, error) {
	return nil, image.ErrVolume
}

// pinner is the fake runtime with one truth added: it pins namespaces, those of
// this process, so that they can be told from files.
type pinner struct{ *runtimetest.Fake }

func (p pinner) CreatePod(ctx context.Context, r runtime.PodRequest) error {
	if err := p.Fake.CreatePod(ctx, r); err != nil {
		return err
	}
	for _, n := range r.Namespaces {
		kind := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.UTSNamespace: "uts", specs.IPCNamespace: "ipc", specs.PIDNamespace: "pid"}[n.Type]
		if err := os.WriteFile(n.Path, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Mount("/proc/self/ns/"+kind, n.Path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin %s: %w", n.Path, err)
		}
	}
	return nil
}

type node struct {
	*pod.Service
	t                  *testing.T
	root, state, netns string // the last is where network namespaces are pinned
	runtime            pinner
	network            *fakeNetwork
	containers         *container.Service
	plugins            pod.Plugins        // from the next restart on
	commands           container.Commands // from the next restart on
	stop               func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	testutil.Root(t) // shm is a mount, and pins are
	n := &node{
		t: t, root: t.TempDir(), state: t.TempDir(), runtime: pinner{&runtimetest.Fake{}},
		network: &fakeNetwork{attached: map[string]network.AttachRequest{}},
	}
	n.netns = filepath.Join(n.state, "netns")
	n.restart()
	t.Cleanup(func() {
		for _, p := range n.List() {
			if err := n.Remove(context.Background(), p.ID); err != nil {
				t.Error(err)
			}
		}
		n.stop()
		mounts, _ := os.ReadFile("/proc/self/mounts")
		if strings.Contains(string(mounts), n.state) {
			t.Errorf("mounts are left:\n%s", mounts)
		}
	})
	return n
}

// restart opens everything anew, as after kill -9 of the daemon.
func (n *node) restart() {
	n.t.Helper()
	if n.stop != nil {
		n.stop()
	}
	var err error
	n.containers, err = container.Open(container.Deps{
		Root: n.root, Runtime: n.runtime, Images: fakeImages{n.t.TempDir()}, Handlers: map[string]spec.Options{"": {}, "berth": {}},
	})
	if err == nil {
		err = n.containers.Recover(n.t.Context())
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.Service, err = pod.Open(pod.Deps{
		Root: n.root, State: n.state, NetNSDir: n.netns, Runtime: n.runtime, Network: n.network, Containers: n.containers,
		Handlers: []string{"berth"}, Commands: n.commands, CgroupDriver: spec.Cgroupfs, Plugins: n.plugins,
	})
	if err == nil {
		err = n.Recover(n.t.Context())
	}
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	containers := n.containers
	go func() { done <- containers.Run(ctx) }()
	n.stop = func() { cancel(); <-done; n.Close(); n.stop = func() {} }
}

func testConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "ns", Uid: "uid-" + name}, Linux: &cri.LinuxPodSandboxConfig{}}
}

func (n *node) run(c *cri.PodSandboxConfig) string {
	n.t.Helper()
	id, err := n.Run(n.t.Context(), c, "")
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

func (n *node) get(id string) *pod.Sandbox {
	n.t.Helper()
	p, err := n.Get(id)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (n *node) create(id, name string) string {
	n.t.Helper()
	c, err := n.CreateContainer(n.t.Context(), id, containerConfig(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func containerConfig(name string) *cri.ContainerConfig {
	return &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: "app"}}
}

func TestAPodLivesThroughItsStates(t *testing.T) {
	n := newNode(t)
	id := n.run(testConfig("p"))
	p := n.get(id)
	if p.State != pod.Ready || len(p.IPs) != 2 || p.NetNS == "" {
		t.Fatalf("after Run: %+v", p)
	}
	hosts, _ := os.ReadFile(filepath.Join(n.state, "pods", id, "hosts"))
	if !strings.Contains(string(hosts), "10.1.2.3\t"+id[:12]) && !strings.Contains(string(hosts), "10.1.2.3 "+id[:12]) {
		t.Errorf("hosts:\n%s", hosts)
	}
	c := n.create(id, "c")
	if err := n.containers.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if st, err := n.containers.Get(c); err != nil || st.Status.State != container.Exited {
		t.Errorf("its container: %+v, %v", st, err)
	}
	if n.get(id).State != pod.NotReady || len(n.network.attached) != 0 || len(n.runtime.Pods()) != 0 {
		t.Errorf("after Stop: %+v, attached %v, pods %v", n.get(id), n.network.attached, n.runtime.Pods())
	}
	if err := n.Stop(t.Context(), id); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if _, err := n.CreateContainer(t.Context(), id, containerConfig("d")); !errors.Is(err, errs.Conflict) {
		t.Errorf("CreateContainer in a stopped pod: %v", err)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Get(id); !errors.Is(err, errs.NotFound) || len(n.containers.List()) != 0 {
		t.Errorf("after Remove: %v, containers %v", err, n.containers.List())
	}
}

func TestHostPortsReachTheNetwork(t *testing.T) {
	n := newNode(t)
	config := testConfig("p")
	config.PortMappings = []*cri.PortMapping{
		{ContainerPort: 80},
		{Protocol: cri.Protocol_UDP, ContainerPort: 53, HostPort: 5353, HostIp: "127.0.0.1"},
		{Protocol: cri.Protocol_SCTP, ContainerPort: 90, HostPort: 9090},
		{ContainerPort: 80, HostPort: -1}, // the network's to refuse
	}
	id := n.run(config)
	want := []network.PortMapping{
		{Protocol: "udp", ContainerPort: 53, HostPort: 5353, HostIP: "127.0.0.1"},
		{Protocol: "sctp", ContainerPort: 90, HostPort: 9090},
		{Protocol: "tcp", ContainerPort: 80, HostPort: -1},
	}
	if got := n.network.attached[id].Ports; !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestARepeatedRunReturnsTheSamePod(t *testing.T) {
	n := newNode(t)
	id := n.run(testConfig("p"))
	if again := n.run(testConfig("p")); again != id {
		t.Errorf("another pod: %s, not %s", again, id)
	}
	n.restart()
	if again := n.run(testConfig("p")); again != id {
		t.Errorf("after a restart: %s, not %s", again, id)
	}
	other := testConfig("p")
	other.Hostname = "other"
	if _, err := n.Run(t.Context(), other, ""); !errors.Is(err, errs.Exists) {
		t.Errorf("the same name for another configuration: %v", err)
	}
	if err := n.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Run(t.Context(), testConfig("p"), ""); !errors.Is(err, errs.Exists) {
		t.Errorf("the name of a stopped pod: %v", err)
	}
}

func TestARetryJoinsTheRunningCall(t *testing.T) {
	n := newNode(t)
	n.network.hold = make(chan struct{})
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := n.Run(first, testConfig("p"), "")
		gone <- err
	}()
	for len(n.IDs()) == 0 { // until it is under way
		select {
		case err := <-gone:
			t.Fatal(err)
		default:
		}
	}
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("the first caller: %v", err)
	}
	close(n.network.hold)
	id := n.run(testConfig("p"))
	if len(n.List()) != 1 || n.get(id).State != pod.Ready {
		t.Errorf("pods: %v", n.List())
	}
}

func TestAFailedRunLeavesNothing(t *testing.T) {
	n := newNode(t)
	n.network.fail = errs.Exhausted
	if _, err := n.Run(t.Context(), testConfig("p"), ""); !errors.Is(err, errs.Exhausted) {
		t.Fatalf("got %v", err)
	}
	if problems, err := n.Check(t.Context(), false); err != nil || len(problems)+len(n.IDs())+len(n.network.attached)+len(n.runtime.Pods()) != 0 {
		t.Errorf("left over: %v, %v, %v, %v", problems, err, n.network.attached, n.runtime.Pods())
	}
	n.network.fail = nil
	n.run(testConfig("p")) // the name is free again
}

func TestBadInputIsRefused(t *testing.T) {
	n := newNode(t)
	relative, long, newline := testConfig("p"), testConfig("p"), testConfig("p")
	relative.LogDirectory = "logs"
	long.Hostname = strings.Repeat("h", 65)
	newline.Hostname = "a\n10.0.0.1 evil"
	windows := testConfig("p")
	windows.Windows = &cri.WindowsPodSandboxConfig{}
	options := func(o *cri.NamespaceOption) *cri.PodSandboxConfig {
		c := testConfig("p")
		c.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: o}
		return c
	}
	group := testConfig("p")
	group.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{RunAsGroup: &cri.Int64Value{Value: 5}}
	for name, c := range map[string]struct {
		config  *cri.PodSandboxConfig
		handler string
		want    error
	}{
		"nil":              {nil, "", errs.Invalid},
		"no name":          {&cri.PodSandboxConfig{}, "", errs.Invalid},
		"unknown handler":  {testConfig("p"), "kata", errs.NotFound},
		"relative logs":    {relative, "", errs.Invalid},
		"long hostname":    {long, "", errs.Invalid},
		"hostname of more": {newline, "", errs.Invalid},
		"group, no user":   {group, "", errs.Invalid},
		"windows":          {windows, "", errs.Invalid},
		"target":           {options(&cri.NamespaceOption{TargetId: "c"}), "", errs.Invalid},
		"target network":   {options(&cri.NamespaceOption{Network: cri.NamespaceMode_TARGET}), "", errs.Invalid},
		"target processes": {options(&cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET}), "", errs.Invalid},
		"no mode of IPC":   {options(&cri.NamespaceOption{Ipc: 7}), "", errs.Invalid},
	} {
		if _, err := n.Run(t.Context(), c.config, c.handler); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestRecoverTakesDownWhatIsHalfMade(t *testing.T) {
	n := newNode(t)
	kept, half := n.run(testConfig("kept")), n.run(testConfig("half"))
	n.create(half, "c")
	n.stop()
	if err := os.Remove(filepath.Join(n.root, "pods", half, "state.json")); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if all := n.List(); len(all) != 1 || all[0].ID != kept || len(n.containers.List()) != 0 {
		t.Errorf("pods %v, containers %v", all, n.containers.List())
	}
	if _, still := n.network.attached[half]; still || len(n.runtime.Pods()) != 1 {
		t.Errorf("left over: %v, %v", n.network.attached, n.runtime.Pods())
	}
	n.run(testConfig("half")) // the name is free
}

func TestAPodDoesNotSurviveAReboot(t *testing.T) {
	n := newNode(t)
	id := n.run(testConfig("p"))
	n.stop()
	mounts := []string{filepath.Join(n.state, "netns", "berth-"+id)}
	for _, name := range []string{"shm", "ns/uts", "ns/ipc", "ns/pid"} {
		mounts = append(mounts, filepath.Join(n.state, "pods", id, name))
	}
	for _, path := range mounts {
		if err := unix.Unmount(path, 0); err != nil {
			t.Fatal(path, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(n.state, "pods")); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if p := n.get(id); p.State != pod.NotReady {
		t.Errorf("state %s", p.State)
	}
	if err := n.Stop(t.Context(), id); err != nil || len(n.network.attached) != 0 {
		t.Errorf("stop: %v, attached %v", err, n.network.attached)
	}
}

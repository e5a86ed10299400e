package container_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
)

// plugins note what they are told, and refuse what refuse names.
type plugins struct {
	refuse string
	change func(*container.Container, *specs.Spec)

	mu    sync.Mutex
	heard []string
}

var errRefused = errors.New("not on my node")

func (p *plugins) hear(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = append(p.heard, what)
	if what == p.refuse {
		return errRefused
	}
	return nil
}

func (p *plugins) Hold() func() {
	_ = p.hear("hold")
	return func() { _ = p.hear("release") }
}

func (p *plugins) Create(_ context.Context, c *container.Container, sp *specs.Spec) error {
	if p.change != nil {
		p.change(c, sp)
	}
	return p.hear("create")
}

func (p *plugins) Start(context.Context, *container.Container) error { return p.hear("start") }

func (p *plugins) Update(_ context.Context, _ *container.Container, r *cri.LinuxContainerResources) (*cri.LinuxContainerResources, error) {
	return &cri.LinuxContainerResources{CpuShares: 2 * r.GetCpuShares()}, p.hear("update")
}

func (p *plugins) Tell(_ context.Context, step container.Step, c *container.Container) {
	_ = p.hear(string(step) + " " + string(c.Status.State))
}

func withPlugins(t *testing.T, p *plugins) *node {
	t.Helper()
	n := newNode(t)
	n.plugins = p
	n.restart()
	return n
}

func TestPluginsAreToldOfEachStep(t *testing.T) {
	p := &plugins{change: func(c *container.Container, sp *specs.Spec) {
		sp.Process.Env = append(sp.Process.Env, "BINARY=\xff")
		c.Status.Resources = &cri.LinuxContainerResources{CpuShares: 7}
	}}
	n := withPlugins(t, p)
	id := n.started(testConfig("c"))
	if got := n.get(id).Status.Resources.GetCpuShares(); got != 7 {
		t.Errorf("%d shares are said to be in force", got)
	}
	if r, _ := n.runtime.Request(id); !slices.Contains(r.Spec.Process.Env, "BINARY=\xff") || len(r.Env) != len(r.Spec.Process.Env) {
		t.Errorf("environment %q, as bytes %q", r.Spec.Process.Env, r.Env)
	}
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 512}); err != nil {
		t.Fatal(err)
	}
	if err := n.SetLimits(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 3}); err != nil {
		t.Fatal(err)
	}
	if u := n.runtime.Updates(id); len(u) != 2 || *u[0].Resources.CPU.Shares != 1024 || *u[1].Resources.CPU.Shares != 3 {
		t.Errorf("updates: %+v", u)
	}
	if err := n.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	want := "hold, create, release, created created, start, started running, update, updated running, removed running"
	if got := strings.Join(p.heard, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestARefusedContainerLeavesNothing(t *testing.T) {
	p := &plugins{refuse: "create"}
	n := withPlugins(t, p)
	_, err := n.Create(t.Context(), testPod(), testConfig("c"))
	if !errors.Is(err, errRefused) {
		t.Fatalf("got %v", err)
	}
	if n.images.mounts() != 0 || len(n.List()) != 0 {
		t.Errorf("%d mounts, %d containers are left", n.images.mounts(), len(n.List()))
	}
	if calls := n.runtime.Calls(); slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "Create") }) {
		t.Errorf("the runtime was asked: %q", calls)
	}
	if got := strings.Join(p.heard, ", "); got != "hold, create, release, removed created" {
		t.Errorf("plugins heard %s", got)
	}
	p.refuse = ""
	n.create(testConfig("c")) // its name is free
}

func TestAContainerWhoseStartIsRefusedHasEnded(t *testing.T) {
	n := withPlugins(t, &plugins{refuse: "start"})
	id := n.create(testConfig("c"))
	if err := n.Start(t.Context(), id); !errors.Is(err, errRefused) {
		t.Fatalf("got %v", err)
	}
	if st := n.get(id).Status; st.State != container.Exited || st.Reason != "StartError" || !strings.Contains(st.Message, errRefused.Error()) {
		t.Errorf("got %+v", st)
	}
}

func TestARefusedUpdateChangesNothing(t *testing.T) {
	n := withPlugins(t, &plugins{refuse: "update"})
	id := n.started(testConfig("c"))
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 512}); !errors.Is(err, errRefused) {
		t.Fatalf("got %v", err)
	}
	if u := n.runtime.Updates(id); len(u) != 0 {
		t.Errorf("updates: %+v", u)
	}
}

func TestWhereAPluginHasPutAContainersCgroupIsKnown(t *testing.T) {
	n := withPlugins(t, &plugins{change: func(_ *container.Container, sp *specs.Spec) { sp.Linux.CgroupsPath = "/special/c" }})
	id := n.started(testConfig("c"))
	for _, when := range []string{"at once", "after a restart"} {
		if got := n.get(id).CgroupsPath; got != "/special/c" {
			t.Errorf("%s: %q", when, got)
		}
		n.restart()
	}
}

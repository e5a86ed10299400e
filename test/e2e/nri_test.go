package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// bePlugin makes this binary a plugin that berthd has started: it marks each
// container with its configuration.
func bePlugin() int {
	s, err := stub.New(&marker{})
	if err == nil {
		err = s.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		return 1
	}
	return 0
}

type marker struct{ mark string }

func (m *marker) Configure(_ context.Context, config, _, _ string) (api.EventMask, error) {
	m.mark = config
	return 0, nil
}

func (m *marker) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	a := &api.ContainerAdjustment{}
	a.AddEnv("MARK", m.mark)
	return a, nil, nil
}

// plugin is one that connects to the shared node; it notes what it is told.
type plugin struct {
	stub.Stub
	adjust func(*api.Container) (*api.ContainerAdjustment, error)
	synced chan []*api.Container

	mu   sync.Mutex
	told []string
}

func connect(t *testing.T, p *plugin) *plugin {
	t.Helper()
	p.synced = make(chan []*api.Container, 1)
	var err error
	p.Stub, err = stub.New(p, stub.WithSocketPath(filepath.Join(berth.Dir, "nri.sock")), stub.WithPluginName("e2e"), stub.WithPluginIdx("50"))
	if err == nil {
		err = p.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// sync waits until the plugin has been told what there is, and takes part.
func (p *plugin) sync(t *testing.T) []*api.Container {
	t.Helper()
	var all []*api.Container
	select {
	case all = <-p.synced:
	case <-time.After(10 * time.Second):
		t.Fatal("the plugin is told nothing")
	}
	eventually(t, func() error { // it takes part a moment after its answer
		runPod(t).remove()
		if !strings.Contains(p.heard(), "run") {
			return errs.Unavailable
		}
		return nil
	})
	return all
}

func (p *plugin) hear(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, what)
}

func (p *plugin) heard() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.told, ", ")
}

// forget starts what heard returns anew.
func (p *plugin) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = nil
}

func (p *plugin) Synchronize(_ context.Context, _ []*api.PodSandbox, all []*api.Container) ([]*api.ContainerUpdate, error) {
	p.synced <- all
	return nil, nil
}

func (p *plugin) RunPodSandbox(_ context.Context, s *api.PodSandbox) error {
	p.hear(fmt.Sprintf("run with %d addresses", len(s.Ips)))
	return nil
}

func (p *plugin) StopPodSandbox(_ context.Context, s *api.PodSandbox) error {
	for _, n := range s.Linux.Namespaces {
		if _, err := os.Stat(n.Path); err != nil {
			p.hear(err.Error())
		}
	}
	p.hear("stop pod")
	return nil
}

func (p *plugin) RemovePodSandbox(context.Context, *api.PodSandbox) error {
	p.hear("remove pod")
	return nil
}

func (p *plugin) CreateContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	p.hear("create")
	if p.adjust == nil {
		return nil, nil, nil
	}
	a, err := p.adjust(c)
	return a, nil, err
}

func (p *plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	if _, err := os.Stat(fmt.Sprint("/proc/", c.Pid)); err != nil || c.Pid == 0 {
		p.hear("a process that is not there")
	}
	p.hear("started")
	return nil
}

func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.hear(fmt.Sprint("stopped with ", c.ExitCode))
	return nil, nil
}

func (p *plugin) RemoveContainer(context.Context, *api.PodSandbox, *api.Container) error {
	p.hear("remove")
	return nil
}

func TestAPluginIsToldOfTheWholeLife(t *testing.T) {
	p := connect(t, &plugin{})
	p.sync(t)
	p.forget()
	q := runPod(t, own)
	q.start(sh("sleep 1; exit 3")).await() // after it is told that it has started
	eventually(t, func() error { return wantText(p.heard(), "stopped") })
	q.start(sleeper())
	q.remove()
	want := "run with 2 addresses, create, started, stopped with 3, create, started, stopped with 137, stop pod, remove, remove, remove pod"
	if got := p.heard(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAPluginChangesWhatAContainerIsMadeOf(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\ncat >"+dir+"/state\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := connect(t, &plugin{adjust: func(c *api.Container) (*api.ContainerAdjustment, error) {
		a := &api.ContainerAdjustment{}
		a.SetLinuxCgroupsPath("/berth/special-" + c.Id)
		a.AddEnv("CHANGED", "plugin")
		a.RemoveEnv("DROPPED")
		a.AddMount(&api.Mount{Destination: "/from/host", Type: "bind", Source: dir, Options: []string{"rbind", "ro", "rprivate"}})
		a.AddDevice(&api.LinuxDevice{Path: "/dev/nothing", Type: "c", Major: 1, Minor: 5, FileMode: api.FileMode(os.FileMode(0o666))})
		a.AddRlimit("RLIMIT_NOFILE", 300, 200)
		a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: hook}}})
		a.AddAnnotation("example.com/by", "plugin")
		score := 321
		a.SetLinuxOomScoreAdj(&score)
		a.SetLinuxCPUShares(300)
		a.SetLinuxMemoryLimit(77 << 20)
		return a, nil
	}})
	p.sync(t)
	q := runPod(t)
	c := sleeper()
	c.Envs = []*cri.KeyValue{{Key: "CHANGED", Value: []byte("no")}, {Key: "DROPPED", Value: []byte("no")}}
	c.Linux.Resources.CpuShares = 1000
	k := q.start(c)
	out := k.sh("env; cat /from/host/file; touch /from/host/x 2>&1; head -c 3 /dev/nothing | wc -c; ulimit -n; cat /proc/1/oom_score_adj")
	for _, want := range []string{"CHANGED=plugin\n", "\nfrom the host\n", "Read-only file system\n3\n200\n321"} {
		if err := wantText(out, want); err != nil {
			t.Error(err)
		}
	}
	if strings.Contains(out, "DROPPED") {
		t.Errorf("got %s", out)
	}
	state, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil || !strings.Contains(string(state), k.id) {
		t.Errorf("the hook was given %q, %v", state, err)
	}
	r := k.status().Resources.Linux
	if r.CpuShares != 300 || r.MemoryLimitInBytes != 77<<20 {
		t.Errorf("in force: %v", r)
	}
	between(t, "what is left in the cgroup of the plugin's choice", k.stats().Memory.GetAvailableBytes(), 1, 77<<20)
	between(t, "the pod's memory", q.stats().Linux.Memory.GetUsageBytes(), k.stats().Memory.GetUsageBytes().GetValue()/2, 1<<30)

	u := &api.ContainerUpdate{ContainerId: k.id}
	u.SetLinuxMemoryLimit(66 << 20)
	if failed, err := p.UpdateContainers([]*api.ContainerUpdate{u}); err != nil || len(failed) != 0 {
		t.Fatalf("failed %v, %v", failed, err)
	}
	if r := k.status().Resources.Linux; r.CpuShares != 300 || r.MemoryLimitInBytes != 66<<20 {
		t.Errorf("in force after an update: %v", r)
	}
}

func TestARefusedContainerLeavesNothing(t *testing.T) {
	p := connect(t, &plugin{adjust: func(*api.Container) (*api.ContainerAdjustment, error) {
		return nil, errors.New("there is no room for it")
	}})
	p.sync(t)
	q := runPod(t)
	c := sleeper()
	if err := q.createError(c); err == nil || !strings.Contains(err.Error(), "there is no room for it") {
		t.Fatalf("got %v", err)
	}
	if out, err := berth.Berth(t.Context(), "check"); err != nil {
		t.Errorf("check: %s, %v", out, err)
	}
	p.Stop()
	eventually(t, func() error { // once the daemon has seen that it is gone
		return q.createError(c)
	})
}

func TestPluginsOfTheDirectoryAreThereAfterARestart(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, configs := filepath.Join(berth.Dir, "nri"), filepath.Join(berth.Dir, "nri.d")
	k := runPod(t).start(sleeper())
	withoutDaemon(t, berth.StopDaemon, func() {
		for _, d := range []string{dir, configs} {
			if err := os.Mkdir(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		err := errors.Join(os.Symlink(self, filepath.Join(dir, "10-marker")), os.WriteFile(filepath.Join(configs, "10-marker.conf"), []byte("by plugin"), 0o600))
		if err != nil {
			t.Fatal(err)
		}
	})
	defer withoutDaemon(t, berth.Kill, func() {
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(configs)); err != nil {
			t.Error(err)
		}
	})
	if out := k.pod.start(sh("echo $MARK")).output(); out != "by plugin" {
		t.Errorf("got %q", out)
	}
	all := connect(t, &plugin{}).sync(t)
	if len(all) != 1 || all[0].Id != k.id || all[0].State != api.ContainerState_CONTAINER_RUNNING {
		t.Errorf("told of %v", all)
	}
}

package nri_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/go-digest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/container"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/nri"
	"github.com/berth-run/berth/pkg/pod"
)

func TestAPluginIsToldOfAContainersLife(t *testing.T) {
	n := newNode(t, nri.Options{})
	before := n.create("before")
	n.start(n.create("runs"))
	p := n.connect(&plugin{})

	id := n.create("c")
	n.start(id)
	p.await(t, "started c")
	if c := p.last; c.Pid == 0 || c.StartedAt == 0 || c.State != api.ContainerState_CONTAINER_RUNNING || c.Image.Digest != digest.FromString("manifest").String() ||
		!slices.Contains(c.Args, "/app") || c.Linux.CgroupsPath == "" || p.pod.Namespace != "ns" {
		t.Errorf("container %v in pod %v", c, p.pod)
	}
	if err := n.containers.Update(t.Context(), id, &cri.LinuxContainerResources{CpuShares: 256}); err != nil {
		t.Fatal(err)
	}
	n.runtime.Exit(id, 3, false)
	p.await(t, "stop c CONTAINER_STOPPED")
	if p.last.ExitCode != 3 {
		t.Errorf("exit code %d", p.last.ExitCode)
	}
	for _, id := range []string{id, before} {
		if err := n.containers.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	want := `sync p ["before CONTAINER_CREATED" "runs CONTAINER_RUNNING"], create c, created c, start c, started c, update c 256, updated c 256, ` +
		"stop c CONTAINER_STOPPED, remove c, stop before CONTAINER_STOPPED, remove before"
	if got := p.told(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAPluginIsToldOfAPodsLife(t *testing.T) {
	n := newNode(t, nri.Options{})
	p := n.connect(&plugin{})
	pods, ctx := n.nri.Pods(), t.Context()
	fresh := &pod.Sandbox{ID: "fresh", Config: n.pod.Config}
	if err := pods.Run(ctx, fresh); err != nil {
		t.Fatal(err)
	}
	if err := pods.Update(ctx, fresh, &cri.LinuxContainerResources{CpuShares: 3}, &cri.LinuxContainerResources{CpuShares: 5}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		pods.Stopped(ctx, fresh)
	}
	for range 2 {
		pods.Removed(ctx, fresh)
	}
	p.onRun = func() error { return errors.New("no room") }
	if err := pods.Run(ctx, fresh); err == nil || err.Error() != "NRI plugin: no room" {
		t.Errorf("refused: %v", err)
	}
	pods.Removed(ctx, fresh)
	want := `sync p [], run fresh, update pod 3 5, pod updated, stop pod fresh, remove pod fresh, run fresh, stop pod fresh, remove pod fresh`
	if got := p.told(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNothingButTheRemovalIsToldAfterTheEnd(t *testing.T) {
	n := newNode(t, nri.Options{})
	p := n.connect(&plugin{})
	id := n.create("c")
	c, err := n.containers.Get(id)
	if err == nil {
		err = n.containers.Kill(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.await(t, "stop c")
	n.nri.Containers().Tell(t.Context(), container.StepStarted, c) // as of a Start that was slower
	if err := n.containers.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := p.told(); got != "sync p [], create c, created c, stop c CONTAINER_STOPPED, remove c" {
		t.Errorf("told %s", got)
	}
}

func TestStopsAreToldBeforeWhatTheyMakeRoomFor(t *testing.T) {
	n := newNode(t, nri.Options{})
	p := n.connect(&plugin{})
	for i := range 20 {
		old := n.create(fmt.Sprint("old", i))
		n.start(old)
		if err := n.containers.Kill(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		n.create(fmt.Sprint("new", i))
		told := p.told()
		if stop, create := strings.Index(told, fmt.Sprint("stop old", i, " ")), strings.Index(told, fmt.Sprint("create new", i)); stop < 0 || stop > create {
			t.Fatalf("told %s", told)
		}
	}
}

func TestWhatAPluginTakesAwayIsGone(t *testing.T) {
	n := newNode(t, nri.Options{})
	n.connect(&plugin{onCreate: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		a.AddEnv("CHANGE", "2")
		a.RemoveEnv("DROP")
		a.RemoveDevice("/dev/dropped")
		return a, nil, nil
	}})
	r, _ := n.runtime.Request(n.create("c"))
	if got := r.Spec.Process.Env; !slices.Contains(got, "KEEP=1") || !slices.Contains(got, "CHANGE=2") || slices.Contains(got, "DROP=1") {
		t.Errorf("environment %q", got)
	}
	if got := r.Spec.Linux.Devices; len(got) != 1 || got[0].Path != "/dev/kept" {
		t.Errorf("devices %v", got)
	}
}

func TestPluginsAddDevicesOfVendors(t *testing.T) {
	dir := t.TempDir()
	text := `{"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["GPU=0"]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "vendor.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, nri.Options{Devices: cdi.New([]string{dir})})
	name := "vendor.com/gpu=0"
	n.connect(&plugin{onCreate: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		a := &api.ContainerAdjustment{}
		a.AddCDIDevice(&api.CDIDevice{Name: name})
		return a, nil, nil
	}})
	r, _ := n.runtime.Request(n.create("c"))
	if got := r.Spec.Process.Env; !slices.Contains(got, "GPU=0") {
		t.Errorf("environment %q", got)
	}
	name = "vendor.com/gpu=1"
	if _, err := n.tryCreate("d"); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), name) {
		t.Errorf("unknown: %v", err)
	}
}

func TestARefusalFailsTheCreation(t *testing.T) {
	n := newNode(t, nri.Options{})
	p := n.connect(&plugin{onCreate: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		return nil, nil, errors.New("no room on node 1")
	}})
	_, err := n.tryCreate("c")
	if err == nil || !strings.HasSuffix(err.Error(), ": NRI plugin: no room on node 1") || errs.Of(err) != "" {
		t.Errorf("got %v", err)
	}
	if len(n.containers.List()) != 0 || p.told() != "sync p [], create c, stop c CONTAINER_CREATED, remove c" {
		t.Errorf("left %v, told %s", n.containers.List(), p.told())
	}
}

func TestARefusedStartIsAStartError(t *testing.T) {
	n := newNode(t, nri.Options{})
	n.connect(&plugin{onStart: func() error { return errors.New("not now") }})
	id := n.create("c")
	if err := n.containers.Start(t.Context(), id); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Fatalf("got %v", err)
	}
	c, err := n.containers.Get(id)
	if err != nil || c.Status.Reason != "StartError" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestASlowPluginIsCutOff(t *testing.T) {
	n := newNode(t, nri.Options{RequestTimeout: 200 * time.Millisecond})
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	p := n.connect(&plugin{onCreate: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
		<-hang
		return nil, nil, nil
	}})
	n.create("c")
	n.await(p.closed, "the plugin is still connected")
	n.create("d")
	if got := p.told(); got != "sync p [], create c" {
		t.Errorf("told %s", got)
	}
}

func TestAPluginThatComesMissesNothingInTheMaking(t *testing.T) {
	n := newNode(t, nri.Options{})
	release := n.nri.Hold() // as Create does
	p := &plugin{}
	n.dial(p)
	select {
	case <-p.synced:
		t.Error("told what there is while something is in the making")
	case <-time.After(100 * time.Millisecond):
	}
	release()
	n.await(p.synced, "the plugin is kept out")
}

func TestTheSocketOfAnotherRuntimeIsLeftAlone(t *testing.T) {
	first := newNode(t, nri.Options{})
	second := newNode(t, nri.Options{Socket: first.socket})
	p := first.connect(&plugin{})
	first.create("c")
	if got := p.told(); got != "sync p [], create c, created c" {
		t.Errorf("told %s", got)
	}
	second.create("d") // it goes on without
}

func TestOnlyASocketThatNobodyListensOnIsReplaced(t *testing.T) {
	dir := t.TempDir()
	left, file := filepath.Join(dir, "left"), filepath.Join(dir, "file")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left})
	if err == nil {
		l.SetUnlinkOnClose(false)
		err = errors.Join(l.Close(), os.WriteFile(file, nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{left: true, file: false} {
		if got := newNode(t, nri.Options{Socket: path}).nri.Listens(); got != want {
			t.Errorf("%s: listens %t", path, got)
		}
	}
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file: %v, %v", info, err)
	}
}

func TestTheSocketIsRootsAlone(t *testing.T) {
	n := newNode(t, nri.Options{})
	info, err := os.Stat(n.socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

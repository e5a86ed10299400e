package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeRuntime keeps pods in a map; what it does not have is Unimplemented.
type fakeRuntime struct {
	cri.UnimplementedRuntimeServiceServer
	failStart bool

	mu    sync.Mutex
	pods  map[string]*cri.PodSandboxConfig
	calls []string
}

func (f *fakeRuntime) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

func (f *fakeRuntime) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "fake", RuntimeVersion: "1"}, nil
}

func (f *fakeRuntime) RunPodSandbox(_ context.Context, r *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	f.note("RunPodSandbox")
	f.mu.Lock()
	defer f.mu.Unlock()
	id := r.GetConfig().GetMetadata().GetUid()
	f.pods[id] = r.GetConfig()
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (f *fakeRuntime) CreateContainer(_ context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	f.note("CreateContainer")
	return &cri.CreateContainerResponse{ContainerId: "c-" + r.GetPodSandboxId()}, nil
}

func (f *fakeRuntime) StartContainer(context.Context, *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	f.note("StartContainer")
	if f.failStart {
		return nil, errors.New("no")
	}
	return &cri.StartContainerResponse{}, nil
}

func (f *fakeRuntime) StopContainer(context.Context, *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	f.note("StopContainer")
	return &cri.StopContainerResponse{}, nil
}

func (f *fakeRuntime) RemoveContainer(context.Context, *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	f.note("RemoveContainer")
	return &cri.RemoveContainerResponse{}, nil
}

func (f *fakeRuntime) StopPodSandbox(context.Context, *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	f.note("StopPodSandbox")
	return &cri.StopPodSandboxResponse{}, nil
}

func (f *fakeRuntime) RemovePodSandbox(_ context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	f.note("RemovePodSandbox")
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, r.GetPodSandboxId())
	return &cri.RemovePodSandboxResponse{}, nil
}

func (f *fakeRuntime) ListPodSandbox(_ context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*cri.PodSandbox
	for id, p := range f.pods {
		matches := true
		for k, v := range r.GetFilter().GetLabelSelector() {
			matches = matches && p.GetLabels()[k] == v
		}
		if matches {
			list = append(list, &cri.PodSandbox{Id: id})
		}
	}
	return &cri.ListPodSandboxResponse{Items: list}, nil
}

func (f *fakeRuntime) ExecSync(context.Context, *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	f.note("ExecSync")
	return &cri.ExecSyncResponse{}, nil
}

// serve serves f and returns a driver for it, whose options have n samples.
func serve(t *testing.T, f *fakeRuntime, n int) *driver {
	t.Helper()
	f.pods = map[string]*cri.PodSandboxConfig{"other": {Labels: map[string]string{runLabel: "another run"}}}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, f)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	d, err := dial(options{Endpoint: socket, Network: networkPod, LogDir: t.TempDir(), N: n, At: 2, Pods: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func TestLifecycleMeasuresEachCall(t *testing.T) {
	f := &fakeRuntime{}
	d := serve(t, f, 3)
	r, err := lifecycle(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range r.Rows {
		names = append(names, x.Name)
		if x.N != 3 {
			t.Errorf("%s has %d samples", x.Name, x.N)
		}
	}
	want := []string{"RunPodSandbox", "CreateContainer", "StartContainer", podUp, "StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox", podDown}
	if !slices.Equal(names, want) {
		t.Errorf("rows %v, want %v", names, want)
	}
}

func TestCleanUpRemovesOnlyThisRunsPods(t *testing.T) {
	f := &fakeRuntime{failStart: true}
	d := serve(t, f, 1)
	if _, err := lifecycle(t.Context(), d); err == nil {
		t.Fatal("a start that failed was measured")
	}
	if len(f.pods) != 2 {
		t.Fatalf("pods before clean-up: %d", len(f.pods))
	}
	if err := d.CleanUp(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.pods["other"]; len(f.pods) != 1 || !ok {
		t.Errorf("pods after clean-up: %v", f.pods)
	}
	if _, err := os.Stat(d.logs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("log directory stays: %v", err)
	}
}

func TestUnimplementedCallsAreRowsNotFailures(t *testing.T) {
	d := serve(t, &fakeRuntime{}, 2)
	r, err := lists(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	notes := map[string]string{}
	for _, x := range r.Rows {
		notes[x.Name] = x.Note
	}
	if notes["ListPodSandbox"] != "" || notes["ListContainerStats"] != "not implemented" {
		t.Errorf("notes: %v", notes)
	}
}

func TestExecCountsBothWays(t *testing.T) {
	f := &fakeRuntime{}
	d := serve(t, f, 5)
	r, err := execSync(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []row{{Name: "ExecSync", N: 5}, {Name: "ExecSync, each of 2 at once", N: 5}, {Name: "ExecSync, 2 at once"}} {
		if got := r.Rows[i]; got.Name != want.Name || got.N != want.N {
			t.Errorf("row %d: %+v, want %+v", i, got, want)
		}
	}
	n := 0
	for _, c := range f.calls {
		if c == "ExecSync" {
			n++
		}
	}
	if n != 10 {
		t.Errorf("%d execs, want 10", n)
	}
}

func TestSpreadEndsAtTheFirstError(t *testing.T) {
	boom := errors.New("boom")
	err := spread(t.Context(), 100, 4, func(_ context.Context, i int) error {
		if i == 3 {
			return fmt.Errorf("call %d: %w", i, boom)
		}
		return nil
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

func TestWhatWasNotPolledIsMissingFromTheFigure(t *testing.T) {
	d := serve(t, &fakeRuntime{}, 1)
	d.Poll = time.Millisecond
	_, missing, err := d.pollCPU(t.Context(), finder{pids: []int{os.Getpid()}})
	if err != nil || !strings.Contains(missing, "ListContainerStats: not implemented; ListPodSandboxStats: not implemented") {
		t.Errorf("missing %q, %v", missing, err)
	}
}

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestAnAttemptIsAPodOfItsOwn(t *testing.T) {
	p := runPod(t)
	next := proto.Clone(p.config).(*cri.PodSandboxConfig)
	next.Metadata.Attempt = 1
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: next})
	if err != nil || r.PodSandboxId == p.id {
		t.Fatalf("%v, %v", r, err)
	}
	q := &pod{t, r.PodSandboxId, next}
	t.Cleanup(q.remove)
	changed := proto.Clone(p.config).(*cri.PodSandboxConfig)
	changed.Labels = map[string]string{"changed": "yes"}
	if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: changed}); code(err) != codes.AlreadyExists {
		t.Errorf("the same name for another configuration: %v", err)
	}
	p.stop()
	if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: p.config}); code(err) != codes.AlreadyExists {
		t.Errorf("the name of a stopped pod: %v", err)
	}
	p.remove()
	r, err = berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		t.Fatalf("the name of a removed pod: %v", err)
	}
	t.Cleanup((&pod{t, r.PodSandboxId, p.config}).remove)
}

func TestPodsAreSeenOnceThoughAskedForByManyAtOnce(t *testing.T) {
	config := podConfig(t)
	own(config)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = r.PodSandboxId
		})
	}
	wg.Wait()
	t.Cleanup((&pod{t, ids[0], config}).remove)
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("got %v", ids)
		}
	}
}

func TestManyStopAndRemoveOnePodAtOnce(t *testing.T) {
	p := runPod(t, own)
	p.start(sleeper())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = berth.Runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id})
			} else {
				_, err = berth.Runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestACancelledCallCanBeRepeated(t *testing.T) {
	for n := range 12 {
		config := podConfig(t)
		own(config)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*3*time.Millisecond)
		_, err := berth.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
		cancel()
		if err != nil && code(err) != codes.DeadlineExceeded {
			t.Errorf("after %d ms: %v", 3*n, err)
		}
		r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		if err != nil {
			t.Fatalf("again after %d ms: %v", 3*n, err)
		}
		p := &pod{t, r.PodSandboxId, config}
		t.Cleanup(p.remove)
		c := sleeper()
		inherit(c, config)
		ctx, cancel = context.WithTimeout(t.Context(), time.Duration(n)*2*time.Millisecond)
		_, err = berth.Runtime.CreateContainer(ctx, p.request(c))
		cancel()
		if err != nil && code(err) != codes.DeadlineExceeded {
			t.Errorf("create after %d ms: %v", 2*n, err)
		}
		p.start(c)
		if s := p.status(); s.State != cri.PodSandboxState_SANDBOX_READY {
			t.Errorf("pod %v", s)
		}
		list, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: p.id}})
		if err != nil || len(list.Containers) != 1 {
			t.Errorf("containers %v, %v", list, err)
		}
	}
}

func TestAFailedPodLeavesNothing(t *testing.T) {
	config := podConfig(t)
	own(config)
	for _, port := range []int32{70000, -1} {
		config.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: port}}
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
			t.Errorf("port %d: %v", port, err)
		}
	}
	pins, err := filepath.Glob(filepath.Join(berth.Dir, "netns", "*"))
	if err != nil {
		t.Fatal(err)
	}
	pods, err := os.ReadDir(filepath.Join(berth.Dir, "data", "pods"))
	if err != nil || len(pods) < len(pins) {
		t.Errorf("%d pods, %d network namespaces, %v", len(pods), len(pins), err)
	}
	config.PortMappings = nil
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatalf("the name is not free: %v", err)
	}
	t.Cleanup((&pod{t, r.PodSandboxId, config}).remove)
}

func TestPodsWithoutWhatTheyNeedAreRefused(t *testing.T) {
	for name, change := range map[string]func(*cri.PodSandboxConfig){
		"no metadata":            func(c *cri.PodSandboxConfig) { c.Metadata = nil },
		"no name":                func(c *cri.PodSandboxConfig) { c.Metadata.Name = "" },
		"relative log directory": func(c *cri.PodSandboxConfig) { c.LogDirectory = "logs" },
		"cgroup parent":          func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = "a\nb" },
		"group without user":     func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{} },
	} {
		config := podConfig(t)
		change(config)
		if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{}); code(err) != codes.InvalidArgument {
		t.Errorf("nothing: %v", err)
	}
	p := runPod(t)
	for name, change := range map[string]func(*cri.ContainerConfig){
		"no metadata": func(c *cri.ContainerConfig) { c.Metadata = nil },
		"no image":    func(c *cri.ContainerConfig) { c.Image = nil },
		"empty image": func(c *cri.ContainerConfig) { c.Image = &cri.ImageSpec{} },
	} {
		config := sh("true")
		change(config)
		if err := p.createError(config); code(err) != codes.InvalidArgument {
			t.Errorf("container with %s: %v", name, err)
		}
	}
	if err := (&pod{t, "0123456789", p.config}).createError(sh("true")); code(err) != codes.NotFound {
		t.Errorf("container in no pod: %v", err)
	}
}

func TestIDsMayBeShortWhereTheyAreUnique(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	s, err := berth.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: c.id[:13]})
	if err != nil || s.Status.Id != c.id {
		t.Errorf("%v, %v", s, err)
	}
	ps, err := berth.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id[:13]})
	if err != nil || ps.Status.Id != p.id || ps.Timestamp == 0 || len(ps.ContainersStatuses) != 1 || ps.ContainersStatuses[0].Id != c.id {
		t.Errorf("%v, %v", ps, err)
	}
	for _, id := range []string{"", "../" + c.id, fmt.Sprintf("%s0", c.id)} {
		if _, err := berth.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id}); code(err) != codes.NotFound && code(err) != codes.InvalidArgument {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

package matrix

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	testnode "github.com/berth-run/berth/test/node"
	"github.com/berth-run/berth/test/testutil"
)

// number tells what is made apart.
var number atomic.Int64

// mark is the label that a pod is found by.
const mark = "matrix"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	testutil.Await(t, 20*time.Second, f)
}

// newPod is the configuration of a pod on the node's network, which is quick to
// make. Pods made of it go with the test.
func newPod(t *testing.T) *cri.PodSandboxConfig {
	t.Helper()
	c, err := podConfig()
	must(t, err)
	t.Cleanup(func() {
		ctx := context.Background() // the test's has ended
		for _, p := range pods(t, c.Labels[mark]) {
			if _, err := berth.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

func podConfig() (*cri.PodSandboxConfig, error) {
	name := fmt.Sprint("p", number.Add(1))
	logs := filepath.Join(berth.Logs(), name)
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "matrix", Uid: "uid-" + name},
		LogDirectory: logs, Labels: map[string]string{mark: name},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER},
		}},
	}, os.MkdirAll(logs, 0o755)
}

// pods lists those of a mark.
func pods(t *testing.T, name string) []*cri.PodSandbox {
	t.Helper()
	r, err := berth.Runtime.ListPodSandbox(context.Background(), &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: map[string]string{mark: name}},
	})
	must(t, err)
	return r.Items
}

// newContainer is the configuration of a container that writes a line and ends
// when it is asked to.
func newContainer(pod *cri.PodSandboxConfig) *cri.ContainerConfig {
	name := fmt.Sprint("c", number.Add(1))
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: busybox}, LogPath: name + ".log",
		Command: []string{"/bin/sh", "-c", "trap 'exit 0' TERM; echo started; while :; do sleep 1000 & wait; done"},
		Linux: &cri.LinuxContainerConfig{
			Resources:       &cri.LinuxContainerResources{},
			SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: pod.Linux.SecurityContext.NamespaceOptions},
		},
	}
}

// things are a pod and a container in it.
type things struct {
	config         *cri.PodSandboxConfig
	pod, container string
	of             *cri.ContainerConfig
}

func ready(t *testing.T) things {
	t.Helper()
	c := newPod(t)
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: c})
	must(t, err)
	return things{config: c, pod: r.PodSandboxId}
}

func created(t *testing.T) things {
	t.Helper()
	x := ready(t)
	must(t, x.create(t.Context()))
	return x
}

func (x *things) create(ctx context.Context) error {
	x.of = newContainer(x.config)
	r, err := berth.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: x.pod, Config: x.of, SandboxConfig: x.config})
	x.container = r.GetContainerId()
	return err
}

func running(t *testing.T) things {
	t.Helper()
	x := created(t)
	_, err := berth.Runtime.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: x.container})
	must(t, err)
	eventually(t, func() error { return x.wrote("started") }) // it heeds signals
	return x
}

// shared are a pod and a running container that nobody changes.
var shared = sync.OnceValues(func() (x things, err error) {
	ctx := context.Background()
	if x.config, err = podConfig(); err != nil {
		return x, err
	}
	r, err := berth.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: x.config})
	if err != nil {
		return x, err
	}
	x.pod = r.PodSandboxId
	if err := x.create(ctx); err != nil {
		return x, err
	}
	_, err = berth.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: x.container})
	return x, err
})

// look returns the shared things.
func look(t *testing.T) things {
	t.Helper()
	x, err := shared()
	must(t, err)
	return x
}

func (x things) status(t *testing.T) *cri.ContainerStatus {
	t.Helper()
	r, err := berth.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: x.container})
	must(t, err)
	return r.Status
}

func (x things) log() string { return filepath.Join(x.config.LogDirectory, x.of.LogPath) }

// wrote tells whether a line is in the log, once.
func (x things) wrote(line string) error {
	text, err := os.ReadFile(x.log())
	if n := strings.Count(string(text), " F "+line+"\n"); err == nil && n != 1 {
		err = fmt.Errorf("%q is %d times in the log of %s", line, n, x.container)
	}
	return err
}

// crowd makes as many pods and containers as it takes for two of each to begin
// with the same digit.
func crowd(t *testing.T) {
	t.Helper()
	for range 17 {
		created(t)
	}
}

// ambiguous is a digit that several of the ids begin with.
func ambiguous(t *testing.T, ids []string) string {
	t.Helper()
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id[:1]] {
			return id[:1]
		}
		seen[id[:1]] = true
	}
	t.Fatalf("ids %q all begin differently", ids)
	return ""
}

// state is all that calls make: objects with their states, records, pins, mounts.
func state(t *testing.T) []string {
	t.Helper()
	var all []string
	p, err := berth.Runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	must(t, err)
	for _, i := range p.Items {
		all = append(all, fmt.Sprint("pod ", i.Id, i.State))
	}
	c, err := berth.Runtime.ListContainers(t.Context(), &cri.ListContainersRequest{})
	must(t, err)
	for _, i := range c.Containers {
		all = append(all, fmt.Sprint("container ", i.Id, i.State))
	}
	images, err := berth.Images.ListImages(t.Context(), &cri.ListImagesRequest{})
	must(t, err)
	for _, i := range images.Images {
		all = append(all, fmt.Sprint("image ", i.Id, i.RepoTags))
	}
	for _, pattern := range []string{"data/pods/*", "data/containers/*", "data/network/*", "run/pods/*", "netns/*"} {
		found, err := filepath.Glob(filepath.Join(berth.Dir, pattern))
		must(t, err)
		all = append(all, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for m := range strings.Lines(string(mounts)) {
		all = append(all, "mount "+strings.Fields(m)[4])
	}
	slices.Sort(all)
	return all
}

// different tells what is in one of two states, which are sorted, alone.
func different(before, after []string) (all []string) {
	for sign, of := range map[string][2][]string{"- ": {before, after}, "+ ": {after, before}} {
		for _, thing := range of[0] {
			if _, there := slices.BinarySearch(of[1], thing); !there {
				all = append(all, sign+thing)
			}
		}
	}
	return all
}

// takeBack removes what a call has made.
func takeBack(t *testing.T, r reply) {
	t.Helper()
	var err error
	if len(r) == 0 {
		return
	}
	switch made := r[0].(type) {
	case *cri.RunPodSandboxResponse:
		_, err = berth.Runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: made.PodSandboxId})
	case *cri.CreateContainerResponse:
		_, err = berth.Runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: made.ContainerId})
	}
	must(t, err)
}

// costs are what a process could leak.
type costs struct{ fds, goroutines int }

// taken is what berthd has now.
func taken(t *testing.T) costs {
	t.Helper()
	fds, err := testnode.Fds(berth.DaemonPID())
	must(t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(berth.State(), "debug.sock"))
	}}}
	r, err := client.Get("http://berth/debug/pprof/goroutine?debug=1")
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	must(t, err)
	c := costs{fds: fds}
	if _, err := fmt.Sscanf(string(text), "goroutine profile: total %d", &c.goroutines); err != nil {
		t.Fatal(err)
	}
	return c
}

// more tells what there is more than before, but for what comes and goes.
func (c costs) more(before costs) error {
	if c.fds > before.fds+6 || c.goroutines > before.goroutines+10 {
		return fmt.Errorf("berthd has %+v, before %+v", c, before)
	}
	return nil
}

package stats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/stats"
)

// node is a node in memory, with cgroups in a directory.
type node struct {
	*stats.Service
	t    *testing.T
	root string // of cgroup v2

	mu         sync.Mutex
	pods       []*pod.Sandbox
	containers []*container.Container
	passes     int
	interfaces []counters.Interface
	written    map[string]uint64
}

// pods and ctrs are the node as the collector sees it.
type (
	pods struct{ *node }
	ctrs struct{ *node }
)

func (n pods) List() []*pod.Sandbox {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*pod.Sandbox(nil), n.pods...)
}

func (n pods) Get(id string) (*pod.Sandbox, error) {
	for _, p := range n.List() {
		if p.ID == id {
			return p, nil
		}
	}
	return nil, errs.NotFound
}

func (n ctrs) List() []*container.Container {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*container.Container(nil), n.containers...)
}

func (n ctrs) Get(id string) (*container.Container, error) {
	for _, c := range n.List() {
		if c.ID == id {
			return c, nil
		}
	}
	return nil, errs.NotFound
}

// Usage is what the layers tell.
func (n *node) Usage(_ context.Context, id string) (bytes, inodes uint64, _ error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.written[id] == 0 {
		return 0, 0, errs.NotFound
	}
	return n.written[id], 2, nil
}

func (n *node) read(namespaces []string) map[string][]counters.Interface {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.passes++
	all := map[string][]counters.Interface{}
	for _, path := range namespaces {
		all[path] = n.interfaces
	}
	return all
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, root: t.TempDir(), written: map[string]uint64{}}
	n.Service = n.open()
	return n
}

// open makes a collector, as a daemon that starts does. It keeps no files open:
// those of a directory would go on after their removal, as a cgroup's do not.
func (n *node) open() *stats.Service {
	s := stats.New(stats.Deps{
		Pods: pods{n}, Containers: ctrs{n}, Layers: n, Hierarchies: &cgroup.Hierarchies{V2: true, Mounts: map[string]string{"": n.root}},
		CgroupDriver: "cgroupfs", LayerRoot: n.root, Interfaces: n.read,
	})
	n.t.Cleanup(s.Close)
	return s
}

// addPod adds a ready pod. Where it shares a parent, that has no counters.
func (n *node) addPod(id, parent string) *pod.Sandbox {
	p := &pod.Sandbox{
		ID: id, State: pod.Ready, CreatedAt: time.Now().Add(-10 * time.Second), NetNS: "/ns/" + id,
		Config: &cri.PodSandboxConfig{
			Metadata: &cri.PodSandboxMetadata{Name: "name-" + id, Namespace: "ns", Uid: "uid-" + id}, Labels: map[string]string{"pod": id},
			Linux: &cri.LinuxPodSandboxConfig{CgroupParent: parent},
		},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods = append(n.pods, p)
	return p
}

func (n *node) addContainer(id, podID string) *container.Container {
	c := &container.Container{
		ID: id, PodID: podID, CreatedAt: time.Now(), Status: container.Status{State: container.Running, StartedAt: time.Now().Add(-10 * time.Second), Resources: &cri.LinuxContainerResources{CpuQuota: 5, CpuPeriod: 10, CpuShares: 7}},
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "name-" + id}, Image: &cri.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "app:1"}, Labels: map[string]string{"c": id},
		},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.containers = append(n.containers, c)
	return c
}

// end makes a container exit: another record takes its place.
func (n *node) end(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, c := range n.containers {
		if c.ID == id {
			ended := *c
			ended.Status.State = container.Exited
			n.containers[i] = &ended
		}
	}
}

// use writes the counters of a cgroup: processor time in milliseconds, memory in
// bytes.
func (n *node) use(path string, cpu, memory int) {
	n.t.Helper()
	n.write(path, map[string]string{
		"cpu.stat":            fmt.Sprintf("usage_usec %d\nuser_usec %d\nsystem_usec 0\nnr_periods 3\nnr_throttled 2\nthrottled_usec 5000000\nnr_bursts 4\n", cpu*1000, cpu*1000),
		"memory.current":      fmt.Sprintln(memory),
		"cpu.max":             "50000 100000\n",
		"cpu.weight":          "39\n",
		"memory.max":          "1000000\n",
		"memory.min":          "10\n",
		"memory.stat":         fmt.Sprintf("anon %d\nfile 40\ninactive_file 10\nfile_dirty 6\npgscan 8\nworkingset_refault_file 9\npgfault 3\npgmajfault 1\n", memory/2),
		"memory.swap.current": "5\n", "memory.swap.max": "max\n",
		"memory.events": "high 7\nmax 1\noom_kill 2\n",
		"cpu.pressure":  "some avg10=1.00 avg60=2.00 avg300=3.00 total=4000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n",
		"pids.current":  "4\n", "pids.max": "max\n", "cgroup.procs": "1\n2\n",
		"io.stat": "",
	})
}

func (n *node) write(path string, files map[string]string) {
	n.t.Helper()
	dir := filepath.Join(n.root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) remove(path string) {
	n.t.Helper()
	if err := os.RemoveAll(filepath.Join(n.root, path)); err != nil {
		n.t.Fatal(err)
	}
}

package pod_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

func TestResourcesOfAPodAreRecorded(t *testing.T) {
	n := newNode(t)
	config := testConfig("p")
	config.Linux.Overhead = &cri.LinuxContainerResources{CpuShares: 10}
	config.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 100, MemoryLimitInBytes: 1 << 30}
	id := n.run(config)
	holds := func(when string, overhead, resources *cri.LinuxContainerResources) {
		t.Helper()
		linux := n.get(id).InForce().Linux
		if d := cmp.Diff([]*cri.LinuxContainerResources{overhead, resources}, []*cri.LinuxContainerResources{linux.Overhead, linux.Resources}, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	holds("not updated", config.Linux.Overhead, config.Linux.Resources)
	more := &cri.LinuxContainerResources{CpuShares: 200, Unified: map[string]string{"memory.high": "5"}}
	if err := n.UpdateResources(t.Context(), id[:12], nil, more); err != nil {
		t.Fatal(err)
	}
	holds("updated", config.Linux.Overhead, more)
	n.restart()
	holds("after a restart", config.Linux.Overhead, more)
	overhead := &cri.LinuxContainerResources{MemoryLimitInBytes: 5}
	if err := n.UpdateResources(t.Context(), id, overhead, nil); err != nil {
		t.Fatal(err)
	}
	if again := n.run(config); again != id { // it is still the pod that was asked for
		t.Errorf("another pod: %s", again)
	}
	if err := n.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.restart()
	holds("stopped", overhead, more)
}

func TestResourcesThatCannotBeRecordedAreNotInForce(t *testing.T) {
	n := newNode(t)
	config := testConfig("p")
	config.Linux = nil
	id := n.run(config)
	resources := &cri.LinuxContainerResources{CpuShares: 5}
	if err := n.UpdateResources(t.Context(), "0123", nil, resources); !errors.Is(err, errs.NotFound) {
		t.Errorf("an unknown pod: %v", err)
	}
	for name, bad := range map[string]*cri.LinuxContainerResources{"the overhead": {CpusetCpus: "\xff"}, "a limit": {Unified: map[string]string{"a.b": "\xff"}}} {
		if err := n.UpdateResources(t.Context(), id, bad, resources); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := n.get(id).InForce(); got.Linux != nil {
		t.Errorf("in force: %v", got)
	}
	if err := n.UpdateResources(t.Context(), id, nil, resources); err != nil || n.get(id).InForce().Linux.Resources.CpuShares != 5 {
		t.Errorf("in force: %v, %v", n.get(id).InForce(), err)
	}
}

func TestARecordOfResourcesThatCannotBeReadEndsItsPod(t *testing.T) {
	n := newNode(t)
	id := n.run(testConfig("p"))
	path := filepath.Join(n.root, "pods", id, "state.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"state":"ready","resources":{"cpuShares":[]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart()
	if p, err := n.Get(id); !errors.Is(err, errs.NotFound) {
		t.Errorf("got %+v, %v", p, err)
	}
}

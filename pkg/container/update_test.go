package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/spec"
)

func TestUpdateKeepsWhatItDoesNotName(t *testing.T) {
	n := newNode(t)
	c := testConfig("c")
	c.Linux = &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 1 << 30}}
	id := n.started(c)
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{MemoryLimitInBytes: 2 << 30, OomScoreAdj: 5}); err != nil {
		t.Fatal(err)
	}
	n.restart()
	got := n.get(id).Status.Resources
	if got.CpuShares != 512 || got.MemoryLimitInBytes != 2<<30 || got.OomScoreAdj != 5 {
		t.Errorf("got %v", got)
	}
	if updates := n.runtime.Updates(id); len(updates) != 1 || *updates[0].OOMScoreAdj != 5 || *updates[0].Resources.Memory.Limit != 2<<30 {
		t.Errorf("updates: %+v", updates)
	}
}

func TestAnUpdateThatFailsKeepsTheRecord(t *testing.T) {
	n := newNode(t)
	c := testConfig("c")
	c.Linux = &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 1 << 30}}
	id := n.started(c)
	update := func() error {
		return n.Update(t.Context(), id, &cri.LinuxContainerResources{MemoryLimitInBytes: 1 << 20})
	}
	kept := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", what)
		}
		if got := n.get(id).Status.Resources.MemoryLimitInBytes; got != 1<<30 {
			t.Errorf("%s: memory %d", what, got)
		}
	}
	n.runtime.Fail = func(verb, _ string) error {
		if verb == runtime.VerbUpdate {
			return errs.Conflict
		}
		return nil
	}
	kept("refused", update())
	n.restart()
	kept("refused, after a restart", errs.Conflict)
	n.runtime.Fail = nil
	state := filepath.Join(n.root, "containers", id, "state.json")
	whole, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(state), os.Mkdir(state, 0o700)); err != nil {
		t.Fatal(err)
	}
	kept("not recorded", update())
	if err := errors.Join(os.Remove(state), os.WriteFile(state, whole, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := update(); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

func TestUpdateKeepsTheNodesMinimumOfTheOOMScore(t *testing.T) {
	n := newNode(t)
	n.options = spec.Options{OOMScoreAdjMin: 100}
	n.restart()
	id := n.started(testConfig("c"))
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{OomScoreAdj: 50}); err != nil {
		t.Fatal(err)
	}
	if got := *n.runtime.Updates(id)[0].OOMScoreAdj; got != 100 {
		t.Errorf("got %d", got)
	}
}

func TestAnUpdateOfSwapAloneIsJoinedToTheMemoryLimit(t *testing.T) {
	n := newNode(t)
	c := testConfig("c")
	c.Linux = &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}}
	id := n.started(c)
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{MemorySwapLimitInBytes: 128 << 20}); err != nil {
		t.Fatal(err)
	}
	if got := n.get(id).Status.Resources; got.MemoryLimitInBytes != 64<<20 || got.MemorySwapLimitInBytes != 128<<20 {
		t.Errorf("got %v", got)
	}
	if err := n.Update(t.Context(), id, &cri.LinuxContainerResources{MemorySwapLimitInBytes: 32 << 20}); !errors.Is(err, errs.Invalid) {
		t.Errorf("below the limit of memory: %v", err)
	}
}

package spec_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

// resources are limits of memory, and of memory and swap.
func resources(limit, sum int64) *cri.LinuxContainerResources {
	return &cri.LinuxContainerResources{MemoryLimitInBytes: limit, MemorySwapLimitInBytes: sum}
}

func TestAnUpdateOfMemoryIsJudgedByWhatTheContainerHas(t *testing.T) {
	set := func(limit, sum *int64) *specs.LinuxMemory { return &specs.LinuxMemory{Limit: limit, Swap: sum} }
	for _, c := range []struct {
		name        string
		old, update *cri.LinuxContainerResources
		noSwap      bool // the host cannot limit it
		merged      *cri.LinuxContainerResources
		limits      *specs.LinuxMemory
	}{
		{"nothing", resources(64, 96), resources(0, 0), false, resources(64, 96), nil},
		{"the limit takes swap away", resources(64, 96), resources(32, 0), false, resources(32, 32), set(new(int64(32)), new(int64(32)))},
		{"the limit is lifted", resources(64, 96), resources(-1, 0), false, resources(-1, -1), set(new(int64(-1)), new(int64(-1)))},
		{"swap alone", resources(64, 0), resources(0, 128), false, resources(64, 128), set(nil, new(int64(128)))},
		{"swap is lifted", resources(64, 96), resources(0, -1), false, resources(64, -1), set(nil, new(int64(-1)))},
		{"both", resources(64, 96), resources(100, 200), false, resources(100, 200), set(new(int64(100)), new(int64(200)))},
		{"of a container without any", nil, resources(64, 96), false, resources(64, 96), set(new(int64(64)), new(int64(96)))},
		{"the limit where swap has none", resources(64, 96), resources(128, 0), true, resources(128, 0), set(new(int64(128)), nil)},
		{"swap where it has none", resources(64, 96), resources(0, 128), true, resources(64, 128), nil},
	} {
		h := facts()
		h.Swap = !c.noSwap
		merged, limits, err := spec.Update(c.old, c.update, h)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(c.merged, merged, protocmp.Transform()); d != "" {
			t.Errorf("%s: in force (-want +got):\n%s", c.name, d)
		}
		if d := cmp.Diff(&specs.LinuxResources{Memory: c.limits}, limits); d != "" {
			t.Errorf("%s: to set (-want +got):\n%s", c.name, d)
		}
	}
}

func TestAnUpdateIsRefusedLikeACreation(t *testing.T) {
	for name, c := range map[string]struct{ old, update *cri.LinuxContainerResources }{
		"swap below the container's memory": {resources(64, 96), resources(0, 32)},
		"swap below the new memory":         {resources(64, 96), resources(200, 100)},
		"swap without any memory limit":     {&cri.LinuxContainerResources{CpuShares: 5}, resources(0, 96)},
		"negative memory":                   {resources(64, 96), resources(-5, 0)},
		"negative shares":                   {resources(64, 96), &cri.LinuxContainerResources{CpuShares: -5}},
	} {
		if merged, _, err := spec.Update(c.old, c.update, facts()); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, %v", name, merged, err)
		}
	}
}

func TestAnUpdateSetsWhatItNamesAndKeepsTheRest(t *testing.T) {
	page := func(size string, limit uint64) *cri.HugepageLimit {
		return &cri.HugepageLimit{PageSize: size, Limit: limit}
	}
	old := &cri.LinuxContainerResources{
		CpuPeriod: 1000, CpuQuota: 500, CpuShares: 5, CpusetCpus: "0", CpusetMems: "0", OomScoreAdj: 7,
		HugepageLimits: []*cri.HugepageLimit{page("2MB", 1), page("1GB", 2)}, Unified: map[string]string{"memory.high": "1", "memory.low": "1"},
	}
	before := proto.CloneOf(old)
	update := &cri.LinuxContainerResources{
		CpuPeriod: 2000, CpusetMems: "0-1",
		HugepageLimits: []*cri.HugepageLimit{page("2MB", 3)}, Unified: map[string]string{"memory.low": "2", "memory.min": "3"},
	}
	merged, limits, err := spec.Update(old, update, facts())
	if err != nil {
		t.Fatal(err)
	}
	want := &cri.LinuxContainerResources{
		CpuPeriod: 2000, CpuQuota: 500, CpuShares: 5, CpusetCpus: "0", CpusetMems: "0-1", OomScoreAdj: 7,
		HugepageLimits: []*cri.HugepageLimit{page("1GB", 2), page("2MB", 3)}, Unified: map[string]string{"memory.high": "1", "memory.low": "2", "memory.min": "3"},
	}
	if d := cmp.Diff(want, merged, protocmp.Transform()); d != "" {
		t.Errorf("in force (-want +got):\n%s", d)
	}
	wantLimits := &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Period: new(uint64(2000)), Mems: "0-1"}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 3}},
		Unified: map[string]string{"memory.low": "2", "memory.min": "3"},
	}
	if d := cmp.Diff(wantLimits, limits); d != "" {
		t.Errorf("to set (-want +got):\n%s", d)
	}
	if d := cmp.Diff(before, old, protocmp.Transform()); d != "" {
		t.Errorf("the old was changed: %s", d)
	}
}

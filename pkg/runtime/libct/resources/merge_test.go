package resources

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestMergeKeepsWhatIsNotAskedFor(t *testing.T) {
	pages := func(size string, limit uint64) *cgroups.HugepageLimit {
		return &cgroups.HugepageLimit{Pagesize: size, Limit: limit}
	}
	now := cgroups.Resources{
		Memory: 64, MemorySwap: 96, CpuQuota: 5, CpuPeriod: 10, CpusetCpus: "0",
		HugetlbLimit: []*cgroups.HugepageLimit{pages("2MB", 1), pages("1GB", 2)},
	}
	period := uint64(20)
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: &period}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 3}}}
	before := append([]*cgroups.HugepageLimit{}, now.HugetlbLimit...)
	old := now.HugetlbLimit
	Merge(&now, &cgroups.Resources{CpuPeriod: 20, HugetlbLimit: []*cgroups.HugepageLimit{pages("2MB", 3)}}, r)
	want := cgroups.Resources{
		Memory: 64, MemorySwap: 96, CpuQuota: 5, CpuPeriod: 20, CpusetCpus: "0",
		HugetlbLimit: []*cgroups.HugepageLimit{pages("1GB", 2), pages("2MB", 3)},
	}
	if d := cmp.Diff(want, now); d != "" {
		t.Error(d)
	}
	if !cmp.Equal(old, before) {
		t.Error("what was merged into is changed") // libcontainer sets it back
	}
}

// TestTheNewerNameOfAFileHolds has v2 files set by an option and by their name.
func TestTheNewerNameOfAFileHolds(t *testing.T) {
	now := cgroups.Resources{
		Memory: 64, MemorySwap: 96, CpuQuota: 5, CpuPeriod: 10, CpuShares: 5, CpuWeight: 1, CpusetCpus: "0", CpusetMems: "0", PidsLimit: new(int64),
		HugetlbLimit: []*cgroups.HugepageLimit{{Pagesize: "2MB", Limit: 1}, {Pagesize: "1GB", Limit: 2}},
	}
	unified := map[string]string{
		"memory.max": "1", "memory.swap.max": "1", "cpu.max": "1 2", "cpu.weight": "7", "cpuset.cpus": "1", "cpuset.mems": "0", "pids.max": "5", "hugetlb.2MB.max": "0",
	}
	Merge(&now, &cgroups.Resources{Unified: unified}, &specs.LinuxResources{Unified: unified})
	if d := cmp.Diff(cgroups.Resources{Unified: unified, HugetlbLimit: []*cgroups.HugepageLimit{{Pagesize: "1GB", Limit: 2}}}, now); d != "" {
		t.Errorf("by name: %s", d)
	}
	limit := int64(128)
	Merge(&now, &cgroups.Resources{Memory: 128}, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})
	if now.Memory != 128 || len(now.Unified) > 0 {
		t.Errorf("by option: %+v", now)
	}
}

func TestSystemdIsToldThatThereIsNoSwap(t *testing.T) {
	files := map[string]string{"memory.swap.max": "max"}
	for name, c := range map[string]struct {
		now   cgroups.Resources
		files map[string]string
		want  map[string]string
	}{
		"no swap":             {cgroups.Resources{Memory: 64, MemorySwap: 64, Unified: map[string]string{"memory.high": "60"}}, files, map[string]string{"memory.high": "60", "memory.swap.max": "0"}},
		"some":                {cgroups.Resources{Memory: 64, MemorySwap: 96}, files, nil},
		"no limit":            {cgroups.Resources{Memory: -1, MemorySwap: -1}, files, nil},
		"said by name":        {cgroups.Resources{Memory: 64, MemorySwap: 64, Unified: map[string]string{"memory.swap.max": "7"}}, files, map[string]string{"memory.swap.max": "7"}},
		"swap is not counted": {cgroups.Resources{Memory: 64, MemorySwap: 64}, nil, nil},
	} {
		SayNoSwap(&c.now, c.files)
		if d := cmp.Diff(c.want, c.now.Unified); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

package spec_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

func TestMemoryAndSwap(t *testing.T) {
	for _, c := range []struct {
		name       string
		limit, sum int64
		swap       bool
		want       *specs.LinuxMemory
	}{
		{"nothing", 0, 0, true, nil},
		{"limit alone means no swap", 100, 0, true, &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(100))}},
		{"both", 100, 300, true, &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(300))}},
		{"unlimited swap", 100, -1, true, &specs.LinuxMemory{Limit: new(int64(100)), Swap: new(int64(-1))}},
		{"no swap accounting", 100, 300, false, &specs.LinuxMemory{Limit: new(int64(100))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := facts()
			h.Swap = c.swap
			got, err := spec.Resources(&cri.LinuxContainerResources{MemoryLimitInBytes: c.limit, MemorySwapLimitInBytes: c.sum}, h)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got.Memory); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestResourcesRefuses(t *testing.T) {
	for name, r := range map[string]*cri.LinuxContainerResources{
		"swap below memory":   {MemoryLimitInBytes: 100, MemorySwapLimitInBytes: 99},
		"swap without memory": {MemorySwapLimitInBytes: 99},
		"negative memory":     {MemoryLimitInBytes: -5},
		"negative period":     {CpuPeriod: -1},
		"negative quota":      {CpuQuota: -2},
		"short period":        {CpuPeriod: 999},
		"long period":         {CpuPeriod: 1_000_001},
		"few shares":          {CpuShares: 1},
		"many shares":         {CpuShares: 262_145},
		"short quota":         {CpuPeriod: 100_000, CpuQuota: 999},
		"cpuset words":        {CpusetCpus: "all"},
		"cpuset backwards":    {CpusetCpus: "3-1"},
		"cpuset two lines":    {CpusetMems: "0\n1"},
		"cpuset huge":         {CpusetCpus: "0-99999999"},
		"cpuset hole":         {CpusetCpus: "0,,1"},
		"unified path":        {Unified: map[string]string{"../memory.max": "1"}},
		"unified no dot":      {Unified: map[string]string{"memory": "1"}},
	} {
		if got, err := spec.Resources(r, facts()); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, r := range map[string]*cri.LinuxContainerResources{
		"page size":          {HugepageLimits: []*cri.HugepageLimit{{PageSize: "16GB", Limit: 1}}},
		"unified controller": {Unified: map[string]string{"rdma.max": "1"}},
	} {
		if got, err := spec.Resources(r, facts()); !errors.Is(err, errs.Unsupported) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	h := facts()
	h.CgroupV2 = false
	if _, err := spec.Resources(&cri.LinuxContainerResources{Unified: map[string]string{"memory.high": "1"}}, h); !errors.Is(err, errs.Unsupported) {
		t.Errorf("unified on version 1: %v", err)
	}
}

func TestResourcesOfNothing(t *testing.T) {
	got, err := spec.Resources(nil, facts())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&specs.LinuxResources{}, got); d != "" {
		t.Error(d)
	}
}

func TestPidsLimit(t *testing.T) {
	in := input()
	if p := build(t, in).Linux.Resources.Pids; p != nil {
		t.Error(p)
	}
	in.Options.PidsLimit = 64
	if p := build(t, in).Linux.Resources.Pids; p == nil || *p.Limit != 64 {
		t.Error(p)
	}
}

func TestCgroupsPath(t *testing.T) {
	for _, c := range []struct{ parent, driver, want string }{
		{"/kubepods/pod1", spec.Cgroupfs, "/kubepods/pod1/c1"},
		{"", "", "/berth/c1"},
		{"/../../etc", spec.Cgroupfs, "/etc/c1"},
		{"/kubepods.slice/kubepods-pod1.slice", spec.Systemd, "kubepods-pod1.slice:berth:c1"},
		{"", spec.Systemd, "berth.slice:berth:c1"},
		{"/kubepods/pod1", spec.Systemd, ""},
		{"a.slice:b", spec.Systemd, ""},
		{"/a:b", spec.Cgroupfs, ""},
	} {
		parent, err := spec.CgroupParent(c.parent, c.driver)
		if c.want == "" {
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if got := spec.CgroupsPath(parent, "c1", c.driver); got != c.want || err != nil {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
	}
}

func TestExpandSlice(t *testing.T) {
	for slice, want := range map[string]string{
		"a.slice": "/a.slice", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice", "-.slice": "/",
		"a": "", ".slice": "", "a--b.slice": "", "-a.slice": "", "a-.slice": "", "x/y.slice": "",
	} {
		got, err := spec.ExpandSlice(slice)
		if got != want || (want == "") != errors.Is(err, errs.Invalid) {
			t.Errorf("%q: got %q, %v", slice, got, err)
		}
	}
}

func FuzzCPUSet(f *testing.F) {
	f.Add("0-3,8")
	f.Add("0\n1")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := spec.Resources(&cri.LinuxContainerResources{CpusetCpus: s}, facts())
		if err != nil || s == "" {
			return
		}
		for _, b := range []byte(r.CPU.Cpus) {
			if b != '-' && b != ',' && (b < '0' || b > '9') {
				t.Errorf("%q was let through", s)
			}
		}
	})
}

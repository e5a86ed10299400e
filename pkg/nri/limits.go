package nri

import (
	"cmp"
	"fmt"
	"maps"
	"math"

	"github.com/containerd/nri/pkg/api"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// nriLimits says CRI's limits in NRI's words. Plugins find all of CPU and memory
// set, as with other runtimes; 0 is not specified.
func nriLimits(r *cri.LinuxContainerResources) *api.LinuxResources {
	if r == nil {
		return nil
	}
	out := &api.LinuxResources{
		Cpu: &api.LinuxCPU{
			Shares: &api.OptionalUInt64{Value: uint64(r.GetCpuShares())}, Quota: &api.OptionalInt64{Value: r.GetCpuQuota()},
			Period: &api.OptionalUInt64{Value: uint64(r.GetCpuPeriod())}, Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems(),
		},
		Memory:  &api.LinuxMemory{Limit: &api.OptionalInt64{Value: r.GetMemoryLimitInBytes()}},
		Unified: maps.Clone(r.GetUnified()),
	}
	if n := r.GetMemorySwapLimitInBytes(); n != 0 {
		out.Memory.Swap = &api.OptionalInt64{Value: n}
	}
	for _, l := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &api.HugepageLimit{PageSize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	return out
}

// criLimits says NRI's limits in CRI's words. The error is errs.Unsupported for
// what CRI has none for.
func criLimits(r *api.LinuxResources) (*cri.LinuxContainerResources, error) {
	if name := beyondCRI(r); name != "" {
		return nil, fmt.Errorf("limit on %s: %w", name, errs.Unsupported)
	}
	return coreLimits(r)
}

// coreLimits takes those of the limits that CRI has words for.
func coreLimits(r *api.LinuxResources) (*cri.LinuxContainerResources, error) {
	cpu := r.GetCpu()
	if cpu.GetShares().GetValue() > math.MaxInt64 || cpu.GetPeriod().GetValue() > math.MaxInt64 {
		return nil, fmt.Errorf("cpu shares %d, period %d: %w", cpu.GetShares().GetValue(), cpu.GetPeriod().GetValue(), errs.Invalid)
	}
	out := &cri.LinuxContainerResources{
		CpuShares: int64(cpu.GetShares().GetValue()), CpuQuota: cpu.GetQuota().GetValue(), CpuPeriod: int64(cpu.GetPeriod().GetValue()),
		CpusetCpus: cpu.GetCpus(), CpusetMems: cpu.GetMems(),
		MemoryLimitInBytes: r.GetMemory().GetLimit().GetValue(), MemorySwapLimitInBytes: r.GetMemory().GetSwap().GetValue(),
	}
	if len(r.GetUnified()) > 0 {
		out.Unified = maps.Clone(r.GetUnified())
	}
	for _, l := range r.GetHugepageLimits() {
		out.HugepageLimits = append(out.HugepageLimits, &cri.HugepageLimit{PageSize: l.GetPageSize(), Limit: l.GetLimit()})
	}
	return out, nil
}

// beyondCRI names a limit that is set and that CRI has no words for.
func beyondCRI(r *api.LinuxResources) string {
	m, c := r.GetMemory(), r.GetCpu()
	for _, l := range []struct {
		name string
		set  bool
	}{
		{"memory reservation", m.GetReservation().GetValue() != 0},
		{"swappiness", m.GetSwappiness() != nil},
		{"the OOM killer", m.GetDisableOomKiller().GetValue()},
		{"realtime CPU time", c.GetRealtimePeriod().GetValue() != 0 || c.GetRealtimeRuntime().GetValue() != 0},
		{"processes", r.GetPids() != nil},
		{"devices", len(r.GetDevices()) > 0},
		{"block I/O by class", r.GetBlockioClass().GetValue() != ""},
		{"RDT by class", r.GetRdtClass().GetValue() != ""},
		{obsolete, hasObsolete(m)},
	} {
		if l.set {
			return l.name
		}
	}
	return ""
}

const obsolete = "kernel memory or its hierarchy"

// hasObsolete tells whether limits are set that the kernel has no more.
func hasObsolete(m *api.LinuxMemory) bool {
	return m.GetKernel().GetValue() != 0 || m.GetKernelTcp().GetValue() != 0 || m.GetUseHierarchy().GetValue()
}

// inForce puts the limits that hold over those that the container was made with.
func inForce(l *api.LinuxContainer, limits *cri.LinuxContainerResources) {
	r := nriLimits(limits)
	if r == nil || l.Resources == nil {
		l.Resources = cmp.Or(l.Resources, r)
		return
	}
	to := l.Resources
	to.Cpu, to.Memory = cmp.Or(to.Cpu, &api.LinuxCPU{}), cmp.Or(to.Memory, &api.LinuxMemory{})
	replace(&to.Cpu.Shares, r.Cpu.Shares)
	replace(&to.Cpu.Quota, r.Cpu.Quota)
	replace(&to.Cpu.Period, r.Cpu.Period)
	replace(&to.Memory.Limit, r.Memory.Limit)
	replace(&to.Memory.Swap, r.Memory.Swap)
	to.Cpu.Cpus, to.Cpu.Mems = cmp.Or(r.Cpu.Cpus, to.Cpu.Cpus), cmp.Or(r.Cpu.Mems, to.Cpu.Mems)
	if len(r.Unified) > 0 {
		to.Unified = r.Unified
	}
	if len(r.HugepageLimits) > 0 {
		to.HugepageLimits = r.HugepageLimits
	}
}

// replace keeps what is there where the new value is 0: not specified.
func replace[N int64 | uint64, V interface{ GetValue() N }](old *V, v V) {
	if v.GetValue() != 0 {
		*old = v
	}
}

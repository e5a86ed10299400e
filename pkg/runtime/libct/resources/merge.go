package resources

import (
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Merge sets in now what r asks for, in its cgroup form asked. All that now names
// is written again, so that of a v2 file that has two names the older one goes.
func Merge(now, asked *cgroups.Resources, r *specs.LinuxResources) {
	if m := r.Memory; m != nil {
		set(&now.Memory, asked.Memory, m.Limit != nil)
		set(&now.MemorySwap, asked.MemorySwap, m.Swap != nil)
		set(&now.MemoryReservation, asked.MemoryReservation, m.Reservation != nil)
		set(&now.MemorySwappiness, asked.MemorySwappiness, m.Swappiness != nil)
		set(&now.OomKillDisable, asked.OomKillDisable, m.DisableOOMKiller != nil)
	}
	if p := r.CPU; p != nil {
		set(&now.CpuShares, asked.CpuShares, p.Shares != nil)
		set(&now.CpuWeight, asked.CpuWeight, p.Shares != nil)
		set(&now.CpuQuota, asked.CpuQuota, p.Quota != nil)
		set(&now.CpuBurst, asked.CpuBurst, p.Burst != nil)
		set(&now.CpuPeriod, asked.CpuPeriod, p.Period != nil)
		set(&now.CpuRtRuntime, asked.CpuRtRuntime, p.RealtimeRuntime != nil)
		set(&now.CpuRtPeriod, asked.CpuRtPeriod, p.RealtimePeriod != nil)
		set(&now.CpusetCpus, asked.CpusetCpus, p.Cpus != "")
		set(&now.CpusetMems, asked.CpusetMems, p.Mems != "")
		set(&now.CPUIdle, asked.CPUIdle, p.Idle != nil)
	}
	set(&now.PidsLimit, asked.PidsLimit, r.Pids != nil)
	for _, l := range asked.HugetlbLimit {
		now.HugetlbLimit = append(withoutPages(now, l.Pagesize), l)
	}
	set(&now.Rdma, asked.Rdma, len(r.Rdma) > 0)
	for key := range r.Unified {
		supersede(now, key)
	}
	now.Unified = asked.Unified // what was set before the kernel has, or something newer
	if r.BlockIO != nil {
		set(&now.BlkioWeight, asked.BlkioWeight, r.BlockIO.Weight != nil)
		set(&now.BlkioLeafWeight, asked.BlkioLeafWeight, r.BlockIO.LeafWeight != nil)
		set(&now.BlkioWeightDevice, asked.BlkioWeightDevice, len(r.BlockIO.WeightDevice) > 0)
		set(&now.BlkioThrottleReadBpsDevice, asked.BlkioThrottleReadBpsDevice, len(r.BlockIO.ThrottleReadBpsDevice) > 0)
		set(&now.BlkioThrottleWriteBpsDevice, asked.BlkioThrottleWriteBpsDevice, len(r.BlockIO.ThrottleWriteBpsDevice) > 0)
		set(&now.BlkioThrottleReadIOPSDevice, asked.BlkioThrottleReadIOPSDevice, len(r.BlockIO.ThrottleReadIOPSDevice) > 0)
		set(&now.BlkioThrottleWriteIOPSDevice, asked.BlkioThrottleWriteIOPSDevice, len(r.BlockIO.ThrottleWriteIOPSDevice) > 0)
	}
}

// SayNoSwap has systemd told that there is no swap, which libcontainer writes but
// does not tell. before are the files that there are.
func SayNoSwap(now *cgroups.Resources, before map[string]string) {
	const file = "memory.swap.max"
	_, asked := now.Unified[file]
	if _, is := before[file]; !is || asked || now.Memory <= 0 || now.MemorySwap != now.Memory {
		return
	}
	now.Unified = maps.Clone(now.Unified)
	if now.Unified == nil {
		now.Unified = map[string]string{}
	}
	now.Unified[file] = "0"
}

func set[T any](field *T, value T, asked bool) {
	if asked {
		*field = value
	}
}

func withoutPages(r *cgroups.Resources, size string) []*cgroups.HugepageLimit {
	return slices.DeleteFunc(slices.Clone(r.HugetlbLimit), func(l *cgroups.HugepageLimit) bool { return l.Pagesize == size })
}

// supersede drops the other name of a v2 file.
func supersede(now *cgroups.Resources, file string) {
	switch file {
	case "cpu.max":
		now.CpuQuota, now.CpuPeriod = 0, 0
	case "cpu.weight":
		now.CpuShares, now.CpuWeight = 0, 0
	case "cpuset.cpus":
		now.CpusetCpus = ""
	case "cpuset.mems":
		now.CpusetMems = ""
	case "memory.max":
		now.Memory = 0
	case "memory.swap.max":
		now.MemorySwap = 0
	case "pids.max":
		now.PidsLimit = nil
	}
	if size, ok := strings.CutPrefix(file, "hugetlb."); ok {
		now.HugetlbLimit = withoutPages(now, strings.TrimSuffix(size, ".max"))
	}
}

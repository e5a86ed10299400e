package resources

import (
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Merge sets in now what r asks for, in its cgroup form asked.
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
	set(&now.HugetlbLimit, asked.HugetlbLimit, len(r.HugepageLimits) > 0)
	set(&now.Rdma, asked.Rdma, len(r.Rdma) > 0)
	if len(r.Unified) > 0 {
		unified := map[string]string{}
		for _, m := range []map[string]string{now.Unified, r.Unified} {
			for k, v := range m {
				unified[k] = v
			}
		}
		now.Unified = unified
	}
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

func set[T any](field *T, value T, asked bool) {
	if asked {
		*field = value
	}
}

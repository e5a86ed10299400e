package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// Update changes the resources that r names and leaves the others as they are.
// The kernel's order between memory and memory+swap is kept in both directions.
// A failed change is taken back.
func (e *Engine) Update(ctx context.Context, r runtime.UpdateRequest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := e.get(r.ID)
	if err != nil {
		return err
	}
	if r.Resources != nil {
		if err := c.setResources(r.Resources); err != nil {
			return fmt.Errorf("update container %s: %w", r.ID, err)
		}
	}
	if r.OOMScoreAdj != nil {
		if err := c.setOOMScoreAdj(e.limits.OOMScoreAdj(*r.OOMScoreAdj)); err != nil {
			return fmt.Errorf("update container %s: %w", r.ID, err)
		}
	}
	return nil
}

func (c *container) setResources(r *specs.LinuxResources) error {
	asked, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{
		CgroupName: c.id,
		Spec:       &specs.Spec{Linux: &specs.Linux{Resources: r}},
	}, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	ct, err := c.load()
	if err != nil {
		return err
	}
	config := ct.Config()
	group, now := *config.Cgroups, *config.Cgroups.Resources
	merge(&now, asked.Resources, r)
	// Rules for devices stay as they are: writing them again is not atomic
	// in v1, and one that is being used would fail in between.
	now.SkipDevices = true
	group.Resources = &now
	config.Cgroups = &group
	err = ct.Set(config)
	if errors.Is(err, libcontainer.ErrNotRunning) {
		return c.stopped()
	}
	if errors.Is(err, cgroups.ErrV1NoUnified) {
		return fmt.Errorf("%w: %w", err, errs.Unsupported)
	}
	if err == nil {
		now.SkipDevices = false // libcontainer keeps and saves it, and refuses to start so
	}
	return err
}

// merge sets in now what r asks for, in its cgroup form asked.
func merge(now, asked *cgroups.Resources, r *specs.LinuxResources) {
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

func (c *container) setOOMScoreAdj(adj int) error {
	if c.pidfd == nil {
		return c.stopped()
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.pid), []byte(strconv.Itoa(adj)), 0)
	// The process was still ours when the write was done, or it hit nobody: a
	// pid is not given again before it is reaped.
	if sigErr := unix.PidfdSendSignal(int(c.pidfd.Fd()), 0, nil, 0); errors.Is(sigErr, unix.ESRCH) {
		return c.stopped()
	}
	return err
}

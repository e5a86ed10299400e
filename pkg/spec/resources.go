package spec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/spec/check"
)

// Resources turns CRI's limits into OCI's, for a new container. Zero fields are
// not specified and stay out; nil gives empty limits.
func Resources(r *cri.LinuxContainerResources, h host.Facts) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{}
	var err error
	if out.CPU, err = cpu(r); err != nil {
		return nil, err
	}
	if out.Memory, err = memory(r, h); err != nil {
		return nil, err
	}
	if out.HugepageLimits, err = hugepages(r.GetHugepageLimits(), h); err != nil {
		return nil, err
	}
	if out.Unified, err = unified(r.GetUnified(), h); err != nil {
		return nil, err
	}
	return out, nil
}

// OOMScoreAdj bounds a score by what the kernel takes, what the node's settings
// allow, and what this host lets Berth set: without CAP_SYS_RESOURCE a lower one
// would fail the start.
func OOMScoreAdj(score int64, h host.Facts, o Options) int {
	least := max(h.OOMScoreAdjMin, -1000)
	if o.OOMScoreAdjMin != 0 {
		least = max(least, o.OOMScoreAdjMin)
	}
	return int(min(max(score, int64(least)), 1000))
}

// What the kernel takes: as a period or a quota, in microseconds, and as shares.
const (
	minCPUTime, maxCPUPeriod   = 1000, 1_000_000
	minCPUShares, maxCPUShares = 2, 262_144
)

func cpu(r *cri.LinuxContainerResources) (*specs.LinuxCPU, error) {
	if r.GetCpuPeriod() < 0 || r.GetCpuShares() < 0 || r.GetCpuQuota() < -1 {
		return nil, fmt.Errorf("cpu period %d, quota %d, shares %d: %w", r.GetCpuPeriod(), r.GetCpuQuota(), r.GetCpuShares(), errs.Invalid)
	}
	if p, q := r.GetCpuPeriod(), r.GetCpuQuota(); p != 0 && (p < minCPUTime || p > maxCPUPeriod) || q > 0 && q < minCPUTime {
		return nil, fmt.Errorf("cpu period %d, quota %d: the kernel takes no less than %d and no period above %d: %w", p, q, minCPUTime, maxCPUPeriod, errs.Invalid)
	}
	if n := r.GetCpuShares(); n != 0 && (n < minCPUShares || n > maxCPUShares) {
		return nil, fmt.Errorf("cpu shares %d: the kernel takes from %d to %d: %w", n, minCPUShares, maxCPUShares, errs.Invalid)
	}
	for _, set := range []string{r.GetCpusetCpus(), r.GetCpusetMems()} {
		if err := check.CPUSet(set); err != nil {
			return nil, err
		}
	}
	c := specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if n := uint64(r.GetCpuPeriod()); n != 0 {
		c.Period = &n
	}
	if n := r.GetCpuQuota(); n != 0 {
		c.Quota = &n
	}
	if n := uint64(r.GetCpuShares()); n != 0 {
		c.Shares = &n
	}
	if c == (specs.LinuxCPU{}) {
		return nil, nil
	}
	return &c, nil
}

// memory sets the limit, and memory plus swap: the configured sum, else the
// limit alone, which means no swap. Where the host cannot limit swap, neither.
func memory(r *cri.LinuxContainerResources, h host.Facts) (*specs.LinuxMemory, error) {
	limit, sum := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	switch {
	case limit < -1 || sum < -1:
		return nil, fmt.Errorf("memory limit %d, with swap %d: %w", limit, sum, errs.Invalid)
	case sum > 0 && limit <= 0:
		return nil, fmt.Errorf("limit of memory and swap %d without one of memory: %w", sum, errs.Invalid)
	case sum > 0 && sum < limit:
		return nil, fmt.Errorf("limit of memory and swap %d is below that of memory %d: %w", sum, limit, errs.Invalid)
	}
	var m specs.LinuxMemory
	if limit != 0 {
		m.Limit = &limit
		if sum == 0 {
			sum = limit
		}
	}
	if sum != 0 && h.Swap {
		m.Swap = &sum
	}
	if m == (specs.LinuxMemory{}) {
		return nil, nil
	}
	return &m, nil
}

// hugepages drops limits of 0 that the host has no page size or controller
// for: kubelet sends one for each size that it knows of.
func hugepages(in []*cri.HugepageLimit, h host.Facts) ([]specs.LinuxHugepageLimit, error) {
	var out []specs.LinuxHugepageLimit
	for _, l := range in {
		known := h.HasController("hugetlb") && slices.Contains(h.HugepageSizes, l.GetPageSize())
		if known {
			out = append(out, specs.LinuxHugepageLimit{Pagesize: l.GetPageSize(), Limit: l.GetLimit()})
		} else if l.GetLimit() > 0 {
			return nil, fmt.Errorf("limit on huge pages of %q: %w", l.GetPageSize(), errs.Unsupported)
		}
	}
	return out, nil
}

// unified checks names and values of cgroup version 2 files.
func unified(in map[string]string, h host.Facts) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	for name, value := range in {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || controller == "" || strings.ContainsAny(name, "/\x00\n") || strings.ContainsRune(value, 0) {
			return nil, fmt.Errorf("unified resource %q: %w", name, errs.Invalid)
		}
		if !h.CgroupV2 {
			return nil, fmt.Errorf("unified resources need cgroup version 2: %w", errs.Unsupported)
		}
		if controller != "cgroup" && !h.HasController(controller) {
			return nil, fmt.Errorf("unified resource %q: no such controller: %w", name, errs.Unsupported)
		}
	}
	return maps.Clone(in), nil
}

func (b *builder) resources() error {
	r, err := Resources(b.Container.GetLinux().GetResources(), b.Host)
	if err != nil {
		return err
	}
	if n := b.Options.PidsLimit; n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	b.spec.Linux.Resources = r
	parent, err := CgroupParent(cmp.Or(b.CgroupParent, b.Pod.GetLinux().GetCgroupParent()), b.Options.CgroupDriver)
	if err != nil {
		return err
	}
	b.spec.Linux.CgroupsPath = CgroupsPath(parent, b.ID, b.Options.CgroupDriver)
	return nil
}

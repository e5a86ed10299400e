package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// kubelet's figures.
const (
	sharesPerCPU = 1024
	minShares    = 2
	maxShares    = 262144
	quotaPeriod  = 100_000
	minQuota     = 1_000
)

// resources turns requests and limits into CRI's, as kubelet does.
func resources(c *corev1.Container, oomScoreAdj int64) (*runtimeapi.LinuxContainerResources, error) {
	r := &runtimeapi.LinuxContainerResources{OomScoreAdj: oomScoreAdj, CpuPeriod: quotaPeriod}
	request := c.Resources.Requests[corev1.ResourceCPU]
	r.CpuShares = min(max(request.MilliValue()*sharesPerCPU/1000, minShares), maxShares)
	for name, limit := range c.Resources.Limits {
		switch {
		case limit.Sign() < 0:
			return nil, fmt.Errorf("limit of %s is negative: %w", name, errs.Invalid)
		case name == corev1.ResourceCPU:
			if !limit.IsZero() {
				r.CpuQuota = max(limit.MilliValue()*quotaPeriod/1000, minQuota)
			}
		case name == corev1.ResourceMemory:
			r.MemoryLimitInBytes = limit.Value()
		case strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			page, err := hugepage(string(name))
			if err != nil {
				return nil, err
			}
			r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: page, Limit: uint64(limit.Value())})
		default:
			return nil, fmt.Errorf("resource %s is not supported by berth apply: %w", name, errs.Unsupported)
		}
	}
	return r, nil
}

// hugepage writes hugepages-2Mi's size as the kernel's files have it, 2MB.
func hugepage(name string) (string, error) {
	size, err := resource.ParseQuantity(strings.TrimPrefix(name, corev1.ResourceHugePagesPrefix))
	if err != nil {
		return "", fmt.Errorf("resource %s: %w: %w", name, errs.Invalid, err)
	}
	for _, u := range []struct {
		bytes int64
		name  string
	}{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if n := size.Value(); n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name), nil
		}
	}
	return "", fmt.Errorf("resource %s: no such page size: %w", name, errs.Invalid)
}

// oomScoreAdj is kubelet's: guaranteed pods go last, those that ask for nothing
// first, the others by the share of the node's memory that they ask for.
func oomScoreAdj(p *corev1.Pod, c *corev1.Container, nodeMemory int64) int64 {
	switch qos(p) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	request := c.Resources.Requests.Memory().Value()
	if nodeMemory <= 0 {
		return 999
	}
	return min(max(1000-1000*request/nodeMemory, 3), 999)
}

func qos(p *corev1.Pod) corev1.PodQOSClass {
	asks, guaranteed := false, true
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range containers {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
				asks = asks || !request.IsZero() || !limit.IsZero()
				guaranteed = guaranteed && !limit.IsZero() && request.Cmp(limit) == 0
			}
		}
	}
	switch {
	case !asks:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/host"
)

// Update returns what is in force once update is applied to a container that
// has the resources old, and the limits to set for it: those that update names,
// and the limit of memory and swap, which follows that of memory. Neither
// argument is changed.
func Update(old, update *cri.LinuxContainerResources, h host.Facts) (*cri.LinuxContainerResources, *specs.LinuxResources, error) {
	limits, err := Resources(withoutMemory(update), h)
	if err != nil {
		return nil, nil, err
	}
	merged := merge(old, update)
	limit, sum := update.GetMemoryLimitInBytes() != 0, update.GetMemorySwapLimitInBytes() != 0
	if !limit && !sum {
		return merged, limits, nil
	}
	if !sum {
		merged.MemorySwapLimitInBytes = 0 // as for a new container: the limit alone means no swap
	}
	m, err := memory(merged, h)
	if err != nil {
		return nil, nil, err
	}
	if m != nil && m.Swap != nil {
		merged.MemorySwapLimitInBytes = *m.Swap
	}
	if m != nil && !limit {
		m.Limit = nil
	}
	if m != nil && *m != (specs.LinuxMemory{}) {
		limits.Memory = m
	}
	return merged, limits, nil
}

// withoutMemory returns the resources whose validity does not depend on what
// the container has.
func withoutMemory(r *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	out := proto.CloneOf(r)
	if out != nil {
		out.MemoryLimitInBytes, out.MemorySwapLimitInBytes = 0, 0
	}
	return out
}

// merge returns the resources with those fields replaced that update sets; in
// lists and maps, those items.
func merge(old, update *cri.LinuxContainerResources) *cri.LinuxContainerResources {
	merged := &cri.LinuxContainerResources{}
	proto.Merge(merged, old)
	pages := slices.Clone(merged.HugepageLimits)
	proto.Merge(merged, update)
	for _, l := range update.GetHugepageLimits() {
		pages = slices.DeleteFunc(pages, func(p *cri.HugepageLimit) bool { return p.GetPageSize() == l.GetPageSize() })
		pages = append(pages, proto.CloneOf(l))
	}
	merged.HugepageLimits = pages // Merge has appended
	return merged
}

package stats

import (
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/pod"
)

func value(n uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: n} }

func containerAttributes(c *container.Container) *cri.ContainerAttributes {
	return &cri.ContainerAttributes{
		Id: c.ID, Metadata: c.Config.GetMetadata(), Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
	}
}

func podAttributes(p *pod.Sandbox) *cri.PodSandboxAttributes {
	return &cri.PodSandboxAttributes{
		Id: p.ID, Metadata: p.Config.GetMetadata(), Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(),
	}
}

// cpuUsage is nil where the kernel does not count it, as the others are.
func cpuUsage(s *cgroup.Stats, now time.Time, rate uint64) *cri.CpuUsage {
	if !s.CPU.Known {
		return nil
	}
	return &cri.CpuUsage{Timestamp: now.UnixNano(), UsageCoreNanoSeconds: value(s.CPU.Usage), UsageNanoCores: value(rate), Psi: psi(s.CPU.Pressure)}
}

func memoryUsage(s *cgroup.Stats, now time.Time) *cri.MemoryUsage {
	m := &s.Memory
	if !m.Known {
		return nil
	}
	return &cri.MemoryUsage{
		Timestamp: now.UnixNano(), WorkingSetBytes: value(m.WorkingSet()), AvailableBytes: available(m.Limit, m.WorkingSet()),
		UsageBytes: value(m.Usage), RssBytes: value(m.Anon), PageFaults: value(m.Faults), MajorPageFaults: value(m.MajorFaults), Psi: psi(m.Pressure),
	}
}

func swapUsage(s *cgroup.Stats, now time.Time) *cri.SwapUsage {
	if !s.Swap.Known {
		return nil
	}
	return &cri.SwapUsage{
		Timestamp: now.UnixNano(), SwapUsageBytes: value(s.Swap.Usage), SwapAvailableBytes: available(s.Swap.Limit, s.Swap.Usage),
	}
}

// available is what a limit leaves: nothing is said without a limit, as kubelet
// does.
func available(limit, used uint64) *cri.UInt64Value {
	if limit == cgroup.Unlimited {
		return nil
	}
	return value(limit - min(limit, used))
}

// ioUsage has nothing but pressure: CRI knows no more.
func ioUsage(s *cgroup.Stats, now time.Time) *cri.IoUsage {
	return &cri.IoUsage{Timestamp: now.UnixNano(), Psi: psi(s.IO.Pressure)}
}

func psi(p *cgroup.Pressure) *cri.PsiStats {
	if p == nil {
		return nil
	}
	return &cri.PsiStats{Some: stall(p.Some), Full: stall(p.Full)}
}

func stall(s cgroup.Stall) *cri.PsiData {
	return &cri.PsiData{Total: s.Total, Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
}

// defaultInterface is how pods call theirs.
const defaultInterface = "eth0"

// networkUsage tells of a pod's interfaces: eth0 is the default one, or the first
// where there is none. It is nil without any: kubelet does not survive a network
// that has no default interface.
func networkUsage(all []counters.Interface, now time.Time) *cri.NetworkUsage {
	if len(all) == 0 {
		return nil
	}
	first := 0
	for i := range all {
		if all[i].Name == defaultInterface {
			first = i
		}
	}
	n := &cri.NetworkUsage{Timestamp: now.UnixNano()}
	for i, c := range all {
		use := &cri.NetworkInterfaceUsage{
			Name: c.Name, RxBytes: value(c.Received.Bytes), RxErrors: value(c.Received.Errors),
			TxBytes: value(c.Transmitted.Bytes), TxErrors: value(c.Transmitted.Errors),
		}
		if i == first {
			n.DefaultInterface = use
		} else {
			n.Interfaces = append(n.Interfaces, use)
		}
	}
	return n
}

package stats

import (
	"time"

	"github.com/berth-run/berth/pkg/cgroup"
)

// usage is what is kept of a container or a pod from one pass to the next.
type usage struct {
	group *cgroup.Group // nil for a pod in a cgroup that is not its own
	// cpu is the last processor time, at when; rate is that up to then.
	cpu   uint64
	when  time.Time
	rate  uint64
	last  cgroup.Stats // of a container: what its pod keeps of it when it goes
	podID string
	// own tells that a pod has its cgroup for itself, outside that a container is not
	// in its pod's. gone is what those of a pod's containers had used that are not
	// there any more and that the pod's own cgroup has not counted.
	own, outside bool
	gone         cgroup.Stats
	init         *cgroup.Group // of a pod's PID 1, where it has one
}

func (u *usage) close() {
	for _, g := range []*cgroup.Group{u.group, u.init} {
		if g != nil {
			g.Close()
		}
	}
}

// minWindow is the shortest time that a rate is made of.
const minWindow = 50 * time.Millisecond

// update takes a new reading and returns the rate in nanoseconds a second. The
// first one is that since born; a counter that went back, as one does that began
// anew, has counted from zero.
func (u *usage) update(cpu uint64, now, born time.Time) uint64 {
	since, used := u.when, cpu-u.cpu
	if since.IsZero() {
		since = born
	}
	if cpu < u.cpu {
		used = cpu
	}
	window := now.Sub(since)
	if !u.when.IsZero() && window < minWindow {
		return u.rate
	}
	if window > 0 {
		u.rate = uint64(float64(used) / window.Seconds())
	}
	u.cpu, u.when = cpu, now
	return u.rate
}

// add adds what one container of a pod uses to the pod's sum. Limits are each
// container's own. Of pressure the sum is unknown: a pod has waited at least as
// long as the container that has waited most.
func add(sum *cgroup.Stats, c cgroup.Stats) {
	retire(sum, &c)
	sum.CPU.Pressure = worse(sum.CPU.Pressure, c.CPU.Pressure)
	sum.Memory.Pressure = worse(sum.Memory.Pressure, c.Memory.Pressure)
	sum.IO.Pressure = worse(sum.IO.Pressure, c.IO.Pressure)
	m := &sum.Memory
	m.Known, m.Limit = m.Known || c.Memory.Known, cgroup.Unlimited
	m.Usage += c.Memory.Usage
	m.Anon += c.Memory.Anon
	m.File += c.Memory.File
	m.Mapped += c.Memory.Mapped
	m.ActiveFile += c.Memory.ActiveFile
	m.InactiveFile += c.Memory.InactiveFile
	m.Kernel += c.Memory.Kernel
	m.Dirty += c.Memory.Dirty
	m.Writeback += c.Memory.Writeback
	sum.Swap.Known, sum.Swap.Limit = sum.Swap.Known || c.Swap.Known, cgroup.Unlimited
	sum.Swap.Usage += c.Swap.Usage
	sum.Pids.Known, sum.Pids.Max = sum.Pids.Known || c.Pids.Known, cgroup.Unlimited
	sum.Pids.Current += c.Pids.Current
	sum.Pids.Processes += c.Pids.Processes
}

// together is what a pod's own cgroup has counted, with its limits, and the rest.
func together(own, rest cgroup.Stats) cgroup.Stats {
	sum := own
	add(&sum, rest)
	sum.Memory.Limit, sum.Swap.Limit, sum.Pids.Max = own.Memory.Limit, own.Swap.Limit, own.Pids.Max
	return sum
}

// retire adds what only grows.
func retire(sum, c *cgroup.Stats) {
	sum.CPU.Known = sum.CPU.Known || c.CPU.Known
	sum.CPU.Usage += c.CPU.Usage
	sum.CPU.User += c.CPU.User
	sum.CPU.System += c.CPU.System
	sum.Memory.Faults += c.Memory.Faults
	sum.Memory.MajorFaults += c.Memory.MajorFaults
	sum.Memory.OOMKills += c.Memory.OOMKills
	sum.Memory.Failures += c.Memory.Failures
	sum.Memory.RefaultAnon += c.Memory.RefaultAnon
	sum.Memory.RefaultFile += c.Memory.RefaultFile
	sum.Memory.Reclaim.Known = sum.Memory.Reclaim.Known || c.Memory.Reclaim.Known
	sum.Memory.Reclaim.Scanned += c.Memory.Reclaim.Scanned
	sum.Memory.Reclaim.Stolen += c.Memory.Reclaim.Stolen
	sum.Memory.Reclaim.HighEvents += c.Memory.Reclaim.HighEvents
}

func worse(a, b *cgroup.Pressure) *cgroup.Pressure {
	if a == nil || b != nil && b.Some.Total > a.Some.Total {
		return b
	}
	return a
}

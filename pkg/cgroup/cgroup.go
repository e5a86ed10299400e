// Package cgroup reads what the kernel counts for a cgroup, v2 and v1, in one
// form. A hybrid host, which has v1 controllers and an empty v2 hierarchy, is v1
// with the pressure that only v2 knows.
//
// It writes nothing. A Group keeps the files open that are read each second,
// because to open one takes the kernel ten times as long as to read it; that
// does not keep a cgroup from going. What a host does not count is absent from
// the answer, not zero: see the Known fields.
package cgroup

// Unlimited stands for a limit that is not there.
const Unlimited = ^uint64(0)

// Stats are the counters of one cgroup and all below it.
type Stats struct {
	CPU     CPU
	Memory  Memory
	Swap    Swap
	Pids    Pids
	IO      IO
	HugeTLB []HugeTLB // only with Detail
}

// CPU is processor time, in nanoseconds.
type CPU struct {
	Known bool
	Usage uint64
	// Only with Detail: the parts, and what the quota has held back.
	User, System              uint64
	Periods, ThrottledPeriods uint64
	ThrottledTime             uint64
	Bursts, BurstTime         uint64 // what was taken beyond the quota, in periods and nanoseconds
	// Only with Detail: what is allowed, as v1 has it. Quota, in microseconds of each
	// Period, is 0 without one.
	Period, Quota, Shares uint64
	Pressure              *Pressure
}

// Memory is in bytes.
type Memory struct {
	Known bool
	Usage uint64
	Limit uint64 // Unlimited: none
	// Anon is anonymous memory, File the page cache, Mapped what of it is mapped.
	Anon, File, Mapped       uint64
	ActiveFile, InactiveFile uint64
	Faults, MajorFaults      uint64
	Dirty, Writeback         uint64 // of File
	RefaultAnon, RefaultFile uint64 // pages that came back soon after they had gone
	Reclaim                  Reclaim
	Pressure                 *Pressure
	// Only with Detail.
	Peak, Kernel, Failures, OOMKills uint64
	// Reservation is v2's memory.min, or v1's soft limit; 0: none.
	Reservation uint64
}

// Reclaim is what taking memory back took, in pages. v1 does not count it.
type Reclaim struct {
	Known           bool
	Scanned, Stolen uint64
	HighEvents      uint64 // how often memory.high was reached; only with Detail
}

// WorkingSet is what kubelet counts: all but the page cache that has not been
// used lately.
func (m *Memory) WorkingSet() uint64 { return m.Usage - min(m.Usage, m.InactiveFile) }

// Swap is in bytes.
type Swap struct {
	Known        bool
	Usage, Limit uint64
}

// Pids are numbers of tasks.
type Pids struct {
	Processes uint64
	// Only with Detail: Current, which counts threads, and Max, which is Unlimited
	// where there is no limit.
	Known        bool
	Current, Max uint64
}

// IO is what went to and came from disks.
type IO struct {
	Pressure *Pressure
	Devices  []Device // only with Detail
}

// Device is the traffic with one disk.
type Device struct {
	Major, Minor           uint64
	ReadBytes, WriteBytes  uint64
	Reads, Writes          uint64
	DiscardBytes, Discards uint64
	Cost                   Cost
}

// Cost is what the kernel's model of a disk, where it is on, has charged, in
// nanoseconds.
type Cost struct {
	Known                        bool
	Usage, Wait, Indebt, Indelay uint64
}

// HugeTLB is the use of huge pages of one size, such as "2MB".
type HugeTLB struct {
	Size                  string
	Usage, Peak, Failures uint64
}

// Pressure is the time that tasks have waited for a resource: some of them, or
// all at once.
type Pressure struct{ Some, Full Stall }

// Stall is a total in nanoseconds, and the share of the last 10, 60 and 300
// seconds in percent.
type Stall struct {
	Total                uint64
	Avg10, Avg60, Avg300 float64
}

// Detail says how much Read reads.
type Detail bool

// What kubelet's statistics need, and what the metrics need beyond it.
const (
	Brief Detail = false
	Full  Detail = true
)

// Reader reads. It has a buffer, so that each goroutine needs its own.
type Reader struct{ buf []byte }

// NewReader returns a Reader.
func NewReader() *Reader { return &Reader{buf: make([]byte, 16<<10)} }

// Read reads a cgroup. The error is fs.ErrNotExist where there is none, or where
// it is gone by the end.
func (r *Reader) Read(g *Group, d Detail) (Stats, error) {
	var s Stats
	if g.h.V2 {
		r.readV2(g, d, &s)
	} else {
		r.readV1(g, d, &s)
	}
	if !s.CPU.Known && !s.Memory.Known && !s.Pids.Known {
		g.Close() // what was not there may come
		return s, g.exists()
	}
	return s, nil
}

// Hierarchies are where cgroups are mounted.
type Hierarchies struct {
	// V2 tells that the controllers are in the v2 hierarchy.
	V2 bool
	// Mounts are mount points by v1 controller; "" is v2's.
	Mounts map[string]string
}

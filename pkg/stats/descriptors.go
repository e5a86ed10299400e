package stats

import (
	"slices"
	"strconv"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cgroup"
)

// baseLabels are on every metric, as kubelet's own cAdvisor has them: dashboards
// select by these. A pod's own metrics have no container, image and name.
var baseLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// emit takes a value of a metric, and those of its own labels.
type emit func(v uint64, labels ...string)

// metric is one family. CRI has whole numbers: seconds are cut off.
type metric struct {
	name, help string
	kind       cri.MetricType
	labels     []string // beside baseLabels
	values     func(s *sample, out emit)
}

const (
	counter = cri.MetricType_COUNTER
	gauge   = cri.MetricType_GAUGE
	second  = 1e9 // in nanoseconds
)

// Descriptors returns the families that Metrics has. They never change.
func Descriptors() []*cri.MetricDescriptor {
	var all []*cri.MetricDescriptor
	for _, m := range metrics {
		all = append(all, &cri.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: slices.Concat(baseLabels, m.labels)})
	}
	return all
}

// metrics are what kubelet serves at /metrics/cadvisor from its own cAdvisor, and
// those of huge pages, which it has switched off. What is absent, and why, is in
// the test of this list.
var metrics = slices.Concat(
	cpuMetrics, memoryMetrics, hugeTLBMetrics, ioMetrics, fsMetrics, networkMetrics, processMetrics, pressureMetrics, specMetrics,
)

// one is the value of a metric without labels of its own.
func one(f func(s *sample) uint64) func(*sample, emit) {
	return func(s *sample, out emit) { out(f(s)) }
}

// ifCPU, ifMemory and ifPids are silent where the kernel does not count.
func ifCPU(f func(c *cgroup.CPU) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		if s.stats.CPU.Known {
			out(f(&s.stats.CPU))
		}
	}
}

func ifMemory(f func(m *cgroup.Memory) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		if s.stats.Memory.Known {
			out(f(&s.stats.Memory))
		}
	}
}

// ifReclaim is for what v2 counts alone.
func ifReclaim(f func(m *cgroup.Memory) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		if s.stats.Memory.Reclaim.Known {
			out(f(&s.stats.Memory))
		}
	}
}

// ifQuota is for what only a CPU quota makes.
func ifQuota(f func(c *cgroup.CPU) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		if s.stats.CPU.Known && s.stats.CPU.Quota > 0 {
			out(f(&s.stats.CPU))
		}
	}
}

var cpuMetrics = []metric{
	{"container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", counter, nil, ifCPU(func(c *cgroup.CPU) uint64 { return c.User / second })},
	{"container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", counter, nil, ifCPU(func(c *cgroup.CPU) uint64 { return c.System / second })},
	{"container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", counter, []string{"cpu"}, func(s *sample, out emit) {
		if s.stats.CPU.Known {
			out(s.stats.CPU.Usage/second, "total")
		}
	}},
	{"container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", counter, nil, ifQuota(func(c *cgroup.CPU) uint64 { return c.Periods })},
	{"container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", counter, nil, ifQuota(func(c *cgroup.CPU) uint64 { return c.ThrottledPeriods })},
	{"container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", counter, nil, ifQuota(func(c *cgroup.CPU) uint64 { return c.ThrottledTime / second })},
	{"container_cpu_cfs_burst_periods_total", "Number of periods when burst occurs.", counter, nil, ifQuota(func(c *cgroup.CPU) uint64 { return c.Bursts })},
	{"container_cpu_cfs_burst_seconds_total", "Total time duration the container has been bursted.", counter, nil, ifQuota(func(c *cgroup.CPU) uint64 { return c.BurstTime / second })},
}

var memoryMetrics = []metric{
	{"container_memory_cache", "Number of bytes of page cache memory.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.File })},
	{"container_memory_rss", "Size of RSS in bytes.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Anon })},
	{"container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Kernel })},
	{"container_memory_mapped_file", "Size of memory mapped files in bytes.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Mapped })},
	{"container_memory_swap", "Container swap usage in bytes.", gauge, nil, func(s *sample, out emit) {
		if s.stats.Swap.Known {
			out(s.stats.Swap.Usage)
		}
	}},
	{"container_memory_failcnt", "Number of memory usage hits limits", counter, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Failures })},
	{"container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Usage })},
	{"container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Peak })},
	{"container_memory_working_set_bytes", "Current working set in bytes.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.WorkingSet() })},
	{"container_memory_total_active_file_bytes", "Current total active file in bytes.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.ActiveFile })},
	{"container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.InactiveFile })},
	{"container_memory_failures_total", "Cumulative count of memory allocation failures.", counter, []string{"failure_type", "scope"}, func(s *sample, out emit) {
		if m := &s.stats.Memory; m.Known {
			for _, scope := range []string{"container", "hierarchy"} {
				out(m.Faults, "pgfault", scope)
				out(m.MajorFaults, "pgmajfault", scope)
			}
		}
	}},
	{"container_memory_events_high_total", "Cumulative count of memory.high throttle events for the container", counter, nil, ifReclaim(func(m *cgroup.Memory) uint64 { return m.Reclaim.HighEvents })},
	{"container_memory_events_max_total", "Cumulative count of memory.max limit hit events for the container", counter, nil, ifReclaim(func(m *cgroup.Memory) uint64 { return m.Failures })},
	{"container_memory_file_dirty_bytes", "Number of bytes of file cache that has been modified but not yet written back to disk.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Dirty })},
	{"container_memory_file_writeback_bytes", "Number of bytes of file cache that is currently being written back to disk.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Writeback })},
	{"container_memory_pgscan_total", "Cumulative number of pages scanned by the page reclaim algorithm.", counter, nil, ifReclaim(func(m *cgroup.Memory) uint64 { return m.Reclaim.Scanned })},
	{"container_memory_pgsteal_total", "Cumulative number of pages reclaimed by the page reclaim algorithm.", counter, nil, ifReclaim(func(m *cgroup.Memory) uint64 { return m.Reclaim.Stolen })},
	{"container_memory_workingset_refault_file_total", "Cumulative number of refaults of previously evicted file pages.", counter, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.RefaultFile })},
	{"container_memory_workingset_refault_anon_total", "Cumulative number of refaults of previously evicted anonymous pages.", counter, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.RefaultAnon })},
	{"container_oom_events_total", "Count of out of memory events observed for the container", counter, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.OOMKills })},
}

var hugeTLBMetrics = []metric{
	{"container_hugetlb_failcnt", "Number of hugepage usage hits limits", counter, []string{"pagesize"}, hugeTLB(func(h *cgroup.HugeTLB) uint64 { return h.Failures })},
	{"container_hugetlb_usage_bytes", "Current hugepage usage in bytes", gauge, []string{"pagesize"}, hugeTLB(func(h *cgroup.HugeTLB) uint64 { return h.Usage })},
	{"container_hugetlb_max_usage_bytes", "Maximum hugepage usage recorded in bytes", gauge, []string{"pagesize"}, hugeTLB(func(h *cgroup.HugeTLB) uint64 { return h.Peak })},
}

func hugeTLB(f func(h *cgroup.HugeTLB) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		for i := range s.stats.HugeTLB {
			out(f(&s.stats.HugeTLB[i]), s.stats.HugeTLB[i].Size)
		}
	}
}

var ioMetrics = []metric{
	{"container_fs_reads_bytes_total", "Cumulative count of bytes read", counter, []string{"device"}, perDisk(func(d *cgroup.Device) uint64 { return d.ReadBytes })},
	{"container_fs_reads_total", "Cumulative count of reads completed", counter, []string{"device"}, perDisk(func(d *cgroup.Device) uint64 { return d.Reads })},
	{"container_fs_writes_bytes_total", "Cumulative count of bytes written", counter, []string{"device"}, perDisk(func(d *cgroup.Device) uint64 { return d.WriteBytes })},
	{"container_fs_writes_total", "Cumulative count of writes completed", counter, []string{"device"}, perDisk(func(d *cgroup.Device) uint64 { return d.Writes })},
	{"container_fs_io_cost_usage_seconds_total", "Cumulative IOCost usage in seconds", counter, []string{"device"}, perCost(func(c *cgroup.Cost) uint64 { return c.Usage })},
	{"container_fs_io_cost_wait_seconds_total", "Cumulative IOCost wait in seconds", counter, []string{"device"}, perCost(func(c *cgroup.Cost) uint64 { return c.Wait })},
	{"container_fs_io_cost_indebt_seconds_total", "Cumulative IOCost debt in seconds", counter, []string{"device"}, perCost(func(c *cgroup.Cost) uint64 { return c.Indebt })},
	{"container_fs_io_cost_indelay_seconds_total", "Cumulative IOCost delay in seconds", counter, []string{"device"}, perCost(func(c *cgroup.Cost) uint64 { return c.Indelay })},
	{"container_blkio_device_usage_total", "Blkio Device bytes usage", counter, []string{"device", "major", "minor", "operation"}, func(s *sample, out emit) {
		for i := range s.stats.IO.Devices {
			d := &s.stats.IO.Devices[i]
			major, minor := strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)
			out(d.ReadBytes, s.disk(d), major, minor, "Read")
			out(d.WriteBytes, s.disk(d), major, minor, "Write")
			out(d.DiscardBytes, s.disk(d), major, minor, "Discard")
		}
	}},
}

func perDisk(f func(d *cgroup.Device) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		for i := range s.stats.IO.Devices {
			out(f(&s.stats.IO.Devices[i]), s.disk(&s.stats.IO.Devices[i]))
		}
	}
}

func perCost(f func(c *cgroup.Cost) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		for i := range s.stats.IO.Devices {
			if d := &s.stats.IO.Devices[i]; d.Cost.Known {
				out(f(&d.Cost)/second, s.disk(d))
			}
		}
	}
}

var fsMetrics = []metric{
	{"container_fs_inodes_free", "Number of available Inodes", gauge, []string{"device"}, ifFS(func(f *fileSystem) uint64 { return f.inodesFree })},
	{"container_fs_inodes_total", "Number of Inodes", gauge, []string{"device"}, ifFS(func(f *fileSystem) uint64 { return f.inodes })},
	{"container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", gauge, []string{"device"}, ifFS(func(f *fileSystem) uint64 { return f.size })},
	{"container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", gauge, []string{"device"}, func(s *sample, out emit) {
		if used := s.written.GetUsedBytes(); used != nil && s.fs != nil {
			out(used.GetValue(), s.fs.device)
		}
	}},
}

func ifFS(f func(f *fileSystem) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		if s.fs != nil && s.written != nil {
			out(f(s.fs), s.fs.device)
		}
	}
}

var networkMetrics = []metric{
	{"container_network_receive_bytes_total", "Cumulative count of bytes received", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Received.Bytes })},
	{"container_network_receive_packets_total", "Cumulative count of packets received", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Received.Packets })},
	{"container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Received.Dropped })},
	{"container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Received.Errors })},
	{"container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Transmitted.Bytes })},
	{"container_network_transmit_packets_total", "Cumulative count of packets transmitted", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Transmitted.Packets })},
	{"container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Transmitted.Dropped })},
	{"container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", counter, []string{"interface"}, perInterface(func(i *iface) uint64 { return i.Transmitted.Errors })},
}

func perInterface(f func(i *iface) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		for i := range s.interfaces {
			out(f(&s.interfaces[i]), s.interfaces[i].Name)
		}
	}
}

var processMetrics = []metric{
	{"container_processes", "Number of processes running inside the container.", gauge, nil, one(func(s *sample) uint64 { return s.stats.Pids.Processes })},
	{"container_file_descriptors", "Number of open file descriptors for the container.", gauge, nil, one(func(s *sample) uint64 { return s.processes.descriptors })},
	{"container_sockets", "Number of open sockets for the container.", gauge, nil, one(func(s *sample) uint64 { return s.processes.sockets })},
	{"container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero", gauge, nil, func(s *sample, out emit) {
		if s.stats.Pids.Known {
			out(zeroIfUnlimited(s.stats.Pids.Max))
		}
	}},
	{"container_threads", "Number of threads running inside the container", gauge, nil, func(s *sample, out emit) {
		if s.stats.Pids.Known {
			out(s.stats.Pids.Current)
		}
	}},
	{"container_ulimits_soft", "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice", gauge, []string{"ulimit"}, func(s *sample, out emit) {
		if s.processes.maxOpenFiles > 0 {
			out(s.processes.maxOpenFiles, "max_open_files")
		}
	}},
	{"container_last_seen", "Last time a container was seen by the exporter", gauge, nil, one(func(s *sample) uint64 { return uint64(s.now.Unix()) })},
	{"container_creation_time_seconds", "Container creation time since unix epoch in seconds.", gauge, nil, one(func(s *sample) uint64 { return uint64(s.created.Unix()) })},
	{"container_start_time_seconds", "Start time of the container since unix epoch in seconds.", gauge, nil, one(func(s *sample) uint64 { return uint64(s.started.Unix()) })},
}

var pressureMetrics = []metric{
	{"container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.", counter, nil, full(cpuPressure)},
	{"container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion.", counter, nil, some(cpuPressure)},
	{"container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.", counter, nil, full(memoryPressure)},
	{"container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion.", counter, nil, some(memoryPressure)},
	{"container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.", counter, nil, full(ioPressure)},
	{"container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion.", counter, nil, some(ioPressure)},
}

func cpuPressure(s *cgroup.Stats) *cgroup.Pressure    { return s.CPU.Pressure }
func memoryPressure(s *cgroup.Stats) *cgroup.Pressure { return s.Memory.Pressure }
func ioPressure(s *cgroup.Stats) *cgroup.Pressure     { return s.IO.Pressure }

func some(of func(*cgroup.Stats) *cgroup.Pressure) func(*sample, emit) {
	return func(s *sample, out emit) {
		if p := of(&s.stats); p != nil {
			out(p.Some.Total / second)
		}
	}
}

func full(of func(*cgroup.Stats) *cgroup.Pressure) func(*sample, emit) {
	return func(s *sample, out emit) {
		if p := of(&s.stats); p != nil {
			out(p.Full.Total / second)
		}
	}
}

var specMetrics = []metric{
	{"container_spec_cpu_period", "CPU period of the container.", gauge, nil, ifSet(func(s *sample) uint64 { return s.stats.CPU.Period })},
	{"container_spec_cpu_quota", "CPU quota of the container.", gauge, nil, ifSet(func(s *sample) uint64 { return s.stats.CPU.Quota })},
	{"container_spec_cpu_shares", "CPU share of the container.", gauge, nil, ifSet((*sample).shares)},
	{"container_spec_memory_limit_bytes", "Memory limit for the container.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return zeroIfUnlimited(m.Limit) })},
	{"container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", gauge, nil, func(s *sample, out emit) {
		if s.stats.Memory.Known {
			out(s.swapLimit())
		}
	}},
	{"container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container.", gauge, nil, ifMemory(func(m *cgroup.Memory) uint64 { return m.Reservation })},
}

// ifSet is silent of what is 0.
func ifSet(f func(s *sample) uint64) func(*sample, emit) {
	return func(s *sample, out emit) {
		if n := f(s); n > 0 {
			out(n)
		}
	}
}

// zeroIfUnlimited is how cAdvisor says that there is no limit.
func zeroIfUnlimited(n uint64) uint64 {
	if n == cgroup.Unlimited {
		return 0
	}
	return n
}

package stats_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/stats"
)

// kubeletMetrics are what the cAdvisor (lib v0.60.5) of kubelet v1.37.2 exports
// with the sets that kubelet asks it for: CPU, memory, disks and what is on them,
// network, processes, OOM kills and pressure.
const kubeletMetrics = `
container_last_seen container_health_state container_cpu_user_seconds_total container_cpu_system_seconds_total container_cpu_usage_seconds_total
container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total container_cpu_cfs_throttled_seconds_total
container_cpu_cfs_burst_periods_total container_cpu_cfs_burst_seconds_total
container_memory_cache container_memory_rss container_memory_kernel_usage container_memory_mapped_file container_memory_swap
container_memory_failcnt container_memory_usage_bytes container_memory_max_usage_bytes container_memory_working_set_bytes
container_memory_total_active_file_bytes container_memory_total_inactive_file_bytes container_memory_failures_total
container_memory_events_high_total container_memory_events_max_total container_memory_file_dirty_bytes container_memory_file_writeback_bytes
container_memory_pgscan_total container_memory_pgsteal_total container_memory_workingset_refault_file_total container_memory_workingset_refault_anon_total
container_fs_inodes_free container_fs_inodes_total container_fs_limit_bytes container_fs_usage_bytes
container_fs_reads_bytes_total container_fs_reads_total container_fs_sector_reads_total container_fs_reads_merged_total container_fs_read_seconds_total
container_fs_writes_bytes_total container_fs_writes_total container_fs_sector_writes_total container_fs_writes_merged_total container_fs_write_seconds_total
container_fs_io_current container_fs_io_time_seconds_total container_fs_io_time_weighted_seconds_total
container_fs_io_cost_usage_seconds_total container_fs_io_cost_wait_seconds_total container_fs_io_cost_indebt_seconds_total container_fs_io_cost_indelay_seconds_total
container_blkio_device_usage_total
container_network_receive_bytes_total container_network_receive_packets_total container_network_receive_packets_dropped_total container_network_receive_errors_total
container_network_transmit_bytes_total container_network_transmit_packets_total container_network_transmit_packets_dropped_total container_network_transmit_errors_total
container_processes container_file_descriptors container_sockets container_threads_max container_threads container_ulimits_soft container_oom_events_total
container_pressure_cpu_stalled_seconds_total container_pressure_cpu_waiting_seconds_total container_pressure_memory_stalled_seconds_total
container_pressure_memory_waiting_seconds_total container_pressure_io_stalled_seconds_total container_pressure_io_waiting_seconds_total
container_creation_time_seconds container_start_time_seconds container_spec_cpu_period container_spec_cpu_quota container_spec_cpu_shares
container_spec_memory_limit_bytes container_spec_memory_swap_limit_bytes container_spec_memory_reservation_limit_bytes
container_scrape_error cadvisor_version_info
`

// Why some of them are absent.
const (
	ofCFQ     = "the kernel's CFQ scheduler counted it, which Linux 5.0 has taken out; cAdvisor shows 0"
	ofItself  = "is about cAdvisor, and kubelet shows it without asking the runtime"
	ofDocker  = "is the result of a health check of Docker's, which CRI has not; its value would be -1, and CRI's are not negative"
	ofTheDisk = "is a whole disk's, which cAdvisor knows for the root cgroup alone; it shows 0 for others"
)

var absentMetrics = map[string]string{
	"container_fs_sector_reads_total": ofCFQ, "container_fs_sector_writes_total": ofCFQ, "container_fs_reads_merged_total": ofCFQ, "container_fs_writes_merged_total": ofCFQ,
	"container_fs_read_seconds_total": ofCFQ, "container_fs_write_seconds_total": ofCFQ, "container_fs_io_current": ofCFQ, "container_fs_io_time_seconds_total": ofCFQ,
	"container_fs_io_time_weighted_seconds_total": ofTheDisk, "container_health_state": ofDocker, "container_scrape_error": ofItself, "cadvisor_version_info": ofItself,
}

// moreMetrics are those that kubelet's cAdvisor knows and does not serve.
const moreMetrics = "container_hugetlb_failcnt container_hugetlb_usage_bytes container_hugetlb_max_usage_bytes"

func TestMetricsAreWhatKubeletServes(t *testing.T) {
	var names []string
	for _, d := range stats.Descriptors() {
		names = append(names, d.Name)
		if base := d.LabelKeys[:6]; !slices.Equal(base, []string{"container", "id", "image", "name", "namespace", "pod"}) || d.Help == "" {
			t.Errorf("%v", d)
		}
	}
	want := slices.DeleteFunc(strings.Fields(kubeletMetrics), func(name string) bool { return absentMetrics[name] != "" })
	want = append(want, strings.Fields(moreMetrics)...)
	slices.Sort(names)
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestMetricsHaveValuesAndLabels(t *testing.T) {
	n := newNode(t)
	n.addPod("p", "")
	c := n.addContainer("c", "p")
	c.Status.PID = os.Getpid()
	n.use("berth/p", 3000, 2000)
	n.use("berth/p/c", 2000, 1000)
	n.write("berth/p/c", map[string]string{
		"io.stat": "999999:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n999999:1 rbytes=7 cost.usage=9000000\n", "hugetlb.2MB.current": "9\n", "hugetlb.2MB.events": "max 8\n",
	})
	n.written["c"] = 77
	n.interfaces = []counters.Interface{{Name: "eth0", Received: counters.Traffic{Bytes: 6}}}
	pods, err := n.Metrics(t.Context())
	if err != nil || len(pods) != 1 || len(pods[0].ContainerMetrics) != 1 {
		t.Fatalf("%v, %v", pods, err)
	}
	keys := map[string][]string{}
	for _, d := range stats.Descriptors() {
		keys[d.Name] = d.LabelKeys
	}
	got := map[string]uint64{}
	for _, m := range slices.Concat(pods[0].Metrics, pods[0].ContainerMetrics[0].Metrics) {
		if len(keys[m.Name]) != len(m.LabelValues) || m.Timestamp == 0 {
			t.Errorf("%v, keys %v", m, keys[m.Name])
			continue
		}
		series := m.Name + "{" + strings.Join(m.LabelValues, ",") + "}"
		if _, twice := got[series]; twice {
			t.Errorf("%s is there twice", series) // for which kubelet serves none of it
		}
		got[series] = m.Value.Value
	}
	const ctr, p = "name-c,/berth/p/c,app:1,c,ns,name-p", ",/berth/p,,,ns,name-p"
	for series, want := range map[string]uint64{
		"container_cpu_usage_seconds_total{" + ctr + ",total}": 2, "container_cpu_usage_seconds_total{" + p + ",total}": 3,
		"container_cpu_cfs_throttled_seconds_total{" + ctr + "}": 5, "container_memory_working_set_bytes{" + ctr + "}": 990,
		"container_memory_failures_total{" + ctr + ",pgfault,container}": 3, "container_oom_events_total{" + ctr + "}": 2,
		"container_blkio_device_usage_total{" + ctr + ",999999:0,999999,0,Discard}": 5, "container_fs_reads_bytes_total{" + ctr + ",999999:1}": 7,
		"container_fs_io_cost_usage_seconds_total{" + ctr + ",999999:1}": 9, "container_memory_file_dirty_bytes{" + ctr + "}": 6, "container_memory_events_high_total{" + ctr + "}": 7,
		"container_memory_pgscan_total{" + ctr + "}": 8, "container_memory_workingset_refault_file_total{" + ctr + "}": 9, "container_cpu_cfs_burst_periods_total{" + ctr + "}": 4,
		"container_spec_cpu_period{" + p + "}": 100000, "container_spec_cpu_quota{" + p + "}": 50000, "container_spec_cpu_shares{" + p + "}": 998, "container_spec_cpu_shares{" + ctr + "}": 7,
		"container_spec_memory_reservation_limit_bytes{" + ctr + "}": 10,
		"container_hugetlb_usage_bytes{" + ctr + ",2MB}":             9,
		"container_network_receive_bytes_total{" + p + ",eth0}":      6, "container_pressure_cpu_waiting_seconds_total{" + ctr + "}": 4,
		"container_spec_cpu_quota{" + ctr + "}": 50000, "container_spec_memory_limit_bytes{" + ctr + "}": 1000000, "container_threads_max{" + ctr + "}": 0,
	} {
		if v, ok := got[series]; !ok || v != want {
			t.Errorf("%s is %d (%v), want %d", series, v, ok, want)
		}
	}
	for _, series := range []string{"container_ulimits_soft{" + ctr + ",max_open_files}", "container_start_time_seconds{" + ctr + "}", "container_creation_time_seconds{" + ctr + "}"} {
		if got[series] == 0 {
			t.Errorf("%s is 0", series)
		}
	}
}

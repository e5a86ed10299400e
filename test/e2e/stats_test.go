package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

const mib = 1 << 20

func (c *ctr) stats() *cri.ContainerStats {
	c.t.Helper()
	r, err := berth.Runtime.ContainerStats(c.t.Context(), &cri.ContainerStatsRequest{ContainerId: c.id})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Stats
}

func (p *pod) stats() *cri.PodSandboxStats {
	p.t.Helper()
	r, err := berth.Runtime.PodSandboxStats(p.t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil {
		p.t.Fatal(err)
	}
	return r.Stats
}

// between fails where a figure is not within bounds.
func between(t *testing.T, what string, v *cri.UInt64Value, low, high uint64) {
	t.Helper()
	if v == nil || v.Value < low || v.Value > high {
		t.Errorf("%s is %v, want %d to %d", what, v, low, high)
	}
}

// oneCore is the most that one process uses, in nanoseconds of each second. An
// emulated machine's clocks do not agree as well.
func oneCore() uint64 { return uint64(testutil.Patience(1100 * time.Millisecond)) }

func TestStatisticsTellWhatAContainerDoes(t *testing.T) {
	p := runPod(t, own)
	c := sh("dd if=/dev/zero of=/written bs=1M count=20; x=$(head -c 30000000 /dev/zero | tr '\\0' x); while [ ! -e /stop ]; do :; done; echo done; sleep 1000")
	c.Linux.Resources.MemoryLimitInBytes = 300 * mib
	c.Labels = map[string]string{"kind": "burner"}
	k := p.start(c)
	eventually(t, func() error { // the processor's rate is that between two passes
		if st := k.stats(); st.Cpu.GetUsageNanoCores().GetValue() < 200e6 || st.Memory.GetRssBytes().GetValue() < 25e6 {
			return fmt.Errorf("burns %v, has %v", st.Cpu.GetUsageNanoCores(), st.Memory.GetRssBytes())
		}
		return nil
	})
	eventually(t, func() error { // it is measured beside the requests
		if st := k.stats(); st.WritableLayer.GetUsedBytes().GetValue() < 20*mib {
			return fmt.Errorf("wrote %v", st.WritableLayer)
		}
		return nil
	})
	st := k.stats()
	if st.Attributes.Id != k.id || st.Attributes.Metadata.GetName() != c.Metadata.Name || st.Attributes.Labels["kind"] != "burner" {
		t.Errorf("attributes %v", st.Attributes)
	}
	between(t, "the rate", st.Cpu.UsageNanoCores, 200e6, oneCore())
	between(t, "the memory in use", st.Memory.UsageBytes, 30e6, 300*mib)
	between(t, "the working set", st.Memory.WorkingSetBytes, 25e6, st.Memory.UsageBytes.GetValue())
	between(t, "what is available", st.Memory.AvailableBytes, 300*mib-st.Memory.WorkingSetBytes.GetValue(), 300*mib-st.Memory.WorkingSetBytes.GetValue())
	between(t, "page faults", st.Memory.PageFaults, 1000, 1e9)
	between(t, "swap", st.Swap.GetSwapUsageBytes(), 0, 300*mib)
	between(t, "major page faults", st.Memory.MajorPageFaults, 0, 1e6)
	between(t, "what it wrote", st.WritableLayer.UsedBytes, 20*mib, 25*mib)
	between(t, "its files", st.WritableLayer.InodesUsed, 1, 100)
	if st.WritableLayer.FsId.GetMountpoint() == "" || st.Io.GetTimestamp() == 0 || st.Cpu.Timestamp == 0 || st.Memory.Timestamp == 0 {
		t.Errorf("statistics %v", st)
	}
	own := p.stats()
	if cgroup2() && (st.Cpu.Psi == nil || st.Memory.Psi == nil || st.Io.GetPsi() == nil || own.Linux.Cpu.Psi == nil || own.Linux.Io.GetPsi() == nil) {
		t.Errorf("no pressure in %v and %v", st, own)
	}
	between(t, "the pod's processor time", own.Linux.Cpu.UsageCoreNanoSeconds, st.Cpu.UsageCoreNanoSeconds.GetValue()/2, 1e12)
	between(t, "the pod's memory", own.Linux.Memory.UsageBytes, 30e6, 400*mib)
	between(t, "the pod's processes", own.Linux.Process.GetProcessCount(), 1, 5)
	if len(own.Linux.Containers) != 1 || own.Linux.Containers[0].Attributes.Id != k.id || own.Attributes.Id != p.id {
		t.Errorf("the pod's containers: %v", own)
	}
	k.sh("touch /stop")
	eventually(t, func() error {
		if rate := k.stats().Cpu.GetUsageNanoCores().GetValue(); rate > 50e6 {
			return fmt.Errorf("still burns %d", rate)
		}
		return nil
	})
}

func TestStatisticsCountAPodsTraffic(t *testing.T) {
	p := runPod(t, own)
	p.start(server(80, strings.Repeat("x", 100)))
	v4, _ := p.addresses()
	before := p.stats().Linux.Network
	for range 20 {
		wantAnswer(t, v4+":80", strings.Repeat("x", 100))
	}
	eventually(t, func() error {
		after := p.stats().Linux.Network
		if after.GetDefaultInterface().GetName() != "eth0" || after.Timestamp == before.GetTimestamp() {
			return fmt.Errorf("network %v", after)
		}
		sent := after.DefaultInterface.TxBytes.GetValue() - before.DefaultInterface.TxBytes.GetValue()
		if sent < 20*100 || sent > 1*mib {
			return fmt.Errorf("sent %d", sent)
		}
		between(t, "errors", after.DefaultInterface.RxErrors, 0, 0)
		between(t, "errors", after.DefaultInterface.TxErrors, 0, 0)
		return nil
	})
	if host := runPod(t).stats(); host.Linux.Network != nil {
		t.Errorf("a pod on the host's network: %v", host.Linux.Network)
	}
}

func TestPodsThatShareACgroupHaveTheirOwnStatistics(t *testing.T) {
	parent, _ := kubepods(t, "shared")
	shared := func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = parent }
	idle, busy := runPod(t, shared), runPod(t, shared)
	idle.start(sleeper())
	first := busy.start(sh("while :; do :; done"))
	busyFor := func(at *pod, low uint64) {
		t.Helper()
		eventually(t, func() error {
			if st := at.stats(); st.Linux.Cpu.GetUsageNanoCores().GetValue() < low {
				return fmt.Errorf("burns %v", st.Linux.Cpu)
			}
			return nil
		})
	}
	busyFor(busy, 200e6)
	between(t, "the idle pod's time", idle.stats().Linux.Cpu.UsageCoreNanoSeconds, 1, uint64(testutil.Patience(500*time.Millisecond))) // its start
	used := busy.stats().Linux.Cpu.UsageCoreNanoSeconds.GetValue()
	busy.start(sleeper())
	first.stop(0)
	between(t, "the time after a container's end", busy.stats().Linux.Cpu.UsageCoreNanoSeconds, used, used*100)
}

func TestStatisticsOutliveTheDaemon(t *testing.T) {
	p := runPod(t)
	k := p.start(sh("while :; do :; done"))
	before := k.stats()
	withoutDaemon(t, berth.Kill, func() {})
	for range 3 {
		after := k.stats()
		between(t, "the time", after.Cpu.UsageCoreNanoSeconds, before.Cpu.UsageCoreNanoSeconds.GetValue(), 1e12)
		between(t, "the rate", after.Cpu.UsageNanoCores, 1e6, oneCore())
		before = after
	}
}

func TestStatisticsAreOfWhatRuns(t *testing.T) {
	p := runPod(t)
	running, created := p.start(sleeper()), p.create(sleeper())
	listed := func() (ids []string) {
		t.Helper()
		r, err := berth.Runtime.ListContainerStats(t.Context(), &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{PodSandboxId: p.id}})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Stats {
			ids = append(ids, s.Attributes.Id)
		}
		return ids
	}
	if ids := listed(); len(ids) != 1 || ids[0] != running.id {
		t.Errorf("listed %v", ids)
	}
	created.start()
	if ids := listed(); len(ids) != 2 { // at once, without waiting for what was cached to age
		t.Errorf("listed %v after a start", ids)
	}
	created.stop(0)
	if ids := listed(); len(ids) != 1 {
		t.Errorf("listed %v after an end", ids)
	}
	if st := created.stats(); st.Cpu != nil || st.Attributes.GetId() != created.id {
		t.Errorf("of one that has ended: %v", st)
	}
	_, err := berth.Runtime.ContainerStats(t.Context(), &cri.ContainerStatsRequest{ContainerId: "nothing"})
	if code(err) != codes.NotFound {
		t.Errorf("of no container: %v", err)
	}
	_, err = berth.Runtime.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: "nothing"})
	if code(err) != codes.NotFound {
		t.Errorf("of no pod: %v", err)
	}
}

func TestListsWhilePodsComeAndGo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, err := berth.Runtime.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
			if err == nil {
				_, err = berth.Runtime.ListPodSandboxMetrics(ctx, &cri.ListPodSandboxMetricsRequest{})
			}
			if err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
	}()
	for range 5 {
		p := runPod(t, own)
		p.start(sleeper())
		p.remove()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMetricsAreThoseThatWereAnnounced(t *testing.T) {
	p := runPod(t, own)
	k := p.start(sleeper())
	d, err := berth.Runtime.ListMetricDescriptors(t.Context(), &cri.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, m := range d.Descriptors {
		labels[m.Name] = m.LabelKeys
	}
	stream, err := berth.Runtime.StreamPodSandboxMetrics(t.Context(), &cri.StreamPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var mine *cri.PodSandboxMetrics
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(r.PodSandboxMetrics, func(m *cri.PodSandboxMetrics) bool { return m.PodSandboxId == p.id }); i >= 0 {
			mine = r.PodSandboxMetrics[i]
		}
	}
	if mine == nil || len(mine.ContainerMetrics) != 1 || mine.ContainerMetrics[0].ContainerId != k.id {
		t.Fatalf("metrics of the pod: %v", mine)
	}
	got := map[string]uint64{}
	for _, m := range slices.Concat(mine.Metrics, mine.ContainerMetrics[0].Metrics) {
		if keys, ok := labels[m.Name]; !ok || len(keys) != len(m.LabelValues) || m.Value == nil {
			t.Errorf("%v with the labels %v", m, keys)
		}
		got[m.Name] = m.Value.GetValue()
	}
	for _, name := range []string{"container_memory_working_set_bytes", "container_processes", "container_threads", "container_file_descriptors", "container_start_time_seconds", "container_fs_limit_bytes", "container_ulimits_soft"} {
		if got[name] == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if _, ok := got["container_network_receive_bytes_total"]; !ok {
		t.Error("no network")
	}
}

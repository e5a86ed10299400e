package stats_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/pod"
)

// pass lets what is cached grow old.
func pass() { time.Sleep(time.Second) }

func (n *node) container(id string) *cri.ContainerStats {
	n.t.Helper()
	st, err := n.Container(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

func (n *node) pod(id string) *cri.PodSandboxStats {
	n.t.Helper()
	st, err := n.Pod(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

func u(n uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: n} }

func TestEveryFieldIsFilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "")
		n.addContainer("c", "p")
		n.use("berth/p", 3000, 2000)
		n.use("berth/p/c", 2000, 1000)
		const pressure = "some avg10=1.00 avg60=2.00 avg300=3.00 total=4000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n"
		for _, path := range []string{"berth/p", "berth/p/c"} {
			n.write(path, map[string]string{"memory.pressure": pressure, "io.pressure": pressure, "memory.swap.max": "25\n"})
		}
		n.written["c"] = 77
		n.interfaces = []counters.Interface{
			{Name: "net1", Received: counters.Traffic{Bytes: 9}},
			{Name: "eth0", Received: counters.Traffic{Bytes: 1, Errors: 2}, Transmitted: counters.Traffic{Bytes: 3, Errors: 4}},
		}
		now := time.Now().UnixNano()
		psi := &cri.PsiStats{Some: &cri.PsiData{Total: 4e9, Avg10: 1, Avg60: 2, Avg300: 3}, Full: &cri.PsiData{Total: 2e9}}
		c := &cri.ContainerStats{
			Attributes:    &cri.ContainerAttributes{Id: "c", Metadata: &cri.ContainerMetadata{Name: "name-c"}, Labels: map[string]string{"c": "c"}},
			Cpu:           &cri.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: u(2e9), UsageNanoCores: u(2e8), Psi: psi},
			Memory:        &cri.MemoryUsage{Timestamp: now, WorkingSetBytes: u(990), AvailableBytes: u(999010), UsageBytes: u(1000), RssBytes: u(500), PageFaults: u(3), MajorPageFaults: u(1), Psi: psi},
			Swap:          &cri.SwapUsage{Timestamp: now, SwapUsageBytes: u(5), SwapAvailableBytes: u(20)},
			Io:            &cri.IoUsage{Timestamp: now, Psi: psi},
			WritableLayer: &cri.FilesystemUsage{Timestamp: now, FsId: &cri.FilesystemIdentifier{Mountpoint: n.root}, UsedBytes: u(77), InodesUsed: u(2)},
		}
		if diff := cmp.Diff(c, n.container("c"), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		p := &cri.PodSandboxStats{
			Attributes: &cri.PodSandboxAttributes{Id: "p", Metadata: &cri.PodSandboxMetadata{Name: "name-p", Namespace: "ns", Uid: "uid-p"}, Labels: map[string]string{"pod": "p"}},
			Linux: &cri.LinuxPodSandboxStats{
				Cpu:    &cri.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: u(3e9), UsageNanoCores: u(3e8), Psi: psi},
				Memory: &cri.MemoryUsage{Timestamp: now, WorkingSetBytes: u(1990), AvailableBytes: u(998010), UsageBytes: u(2000), RssBytes: u(1000), PageFaults: u(3), MajorPageFaults: u(1), Psi: psi},
				Network: &cri.NetworkUsage{
					Timestamp:        now,
					DefaultInterface: &cri.NetworkInterfaceUsage{Name: "eth0", RxBytes: u(1), RxErrors: u(2), TxBytes: u(3), TxErrors: u(4)},
					Interfaces:       []*cri.NetworkInterfaceUsage{{Name: "net1", RxBytes: u(9), RxErrors: u(0), TxBytes: u(0), TxErrors: u(0)}},
				},
				Process: &cri.ProcessUsage{Timestamp: now, ProcessCount: u(4)}, Containers: []*cri.ContainerStats{c}, Io: &cri.IoUsage{Timestamp: now, Psi: psi},
			},
		}
		if diff := cmp.Diff(p, n.pod("p"), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if missing := unset(n.pod("p").ProtoReflect(), ""); !slices.Equal(missing, []string{".windows"}) {
			t.Errorf("nothing is said of %v", missing)
		}
	})
}

// unset returns the messages and lists, in m and below, that are not there.
func unset(m protoreflect.Message, at string) (all []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := at + "." + string(f.Name())
		switch {
		case f.Message() == nil || f.IsMap():
		case !m.Has(f):
			all = append(all, name)
		case f.IsList():
			for j := range m.Get(f).List().Len() {
				all = append(all, unset(m.Get(f).List().Get(j).Message(), name)...)
			}
		default:
			all = append(all, unset(m.Get(f).Message(), name)...)
		}
	}
	return all
}

func TestRatesAreBetweenPassesAndNeverNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "")
		n.addContainer("c", "p")
		n.use("berth/p", 0, 0)
		for _, step := range []struct {
			used int // milliseconds
			want uint64
		}{{1000, 1e8}, {1500, 5e8}, {1500, 0}, {200, 2e8}} { // since the start, 10 s ago; half a core; none; counted anew
			n.use("berth/p/c", step.used, 0)
			if got := n.container("c").Cpu.UsageNanoCores.Value; got != step.want {
				t.Errorf("after %d ms: %d, want %d", step.used, got, step.want)
			}
			pass()
		}
		n.use("berth/p/c", 1200, 0)
		again := &node{t: t, Service: n.open()} // the daemon has restarted
		if got := again.container("c").Cpu.UsageNanoCores.Value; got != 85_714_285 {
			t.Errorf("after a restart: %d", got)
		}
	})
}

func TestOnePassAnswersManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "")
		n.addContainer("c", "p")
		n.use("berth/p", 0, 0)
		n.use("berth/p/c", 0, 0)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { n.container("c"); n.pod("p") })
		}
		wg.Wait()
		if n.passes != 1 {
			t.Errorf("%d passes for requests at once", n.passes)
		}
		n.addContainer("new", "p")
		n.use("berth/p/new", 0, 0)
		n.container("new") // at once
		pass()
		n.pod("p")
		if n.passes != 3 {
			t.Errorf("%d passes", n.passes)
		}
	})
}

func TestPodsOfOneCgroupAreTheSumsOfTheirContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "/mine")
		n.addPod("q", "/mine")
		for _, c := range []string{"a", "b"} {
			n.addContainer(c, "p")
			n.use("mine/"+c, 1000, 100)
		}
		n.addContainer("other", "q")
		n.use("mine/other", 9000, 9000)
		n.use("mine", 99000, 99000)
		st := n.pod("p").Linux
		if st.Cpu.UsageCoreNanoSeconds.Value != 2e9 || st.Memory.UsageBytes.Value != 200 || st.Process.ProcessCount.Value != 4 || len(st.Containers) != 2 || st.Cpu.Psi.GetSome().GetTotal() != 4e9 {
			t.Errorf("%v", st)
		}
		pass()
		n.end("a")
		n.remove("mine/a")
		st = n.pod("p").Linux
		if st.Cpu.UsageCoreNanoSeconds.Value != 2e9 || st.Cpu.UsageNanoCores.Value != 0 || st.Memory.UsageBytes.Value != 100 || len(st.Containers) != 1 {
			t.Errorf("after an end: %v", st)
		}
		pass()
		n.remove("mine/b") // the kernel knows before we do
		if st = n.pod("p").Linux; st.Cpu.UsageCoreNanoSeconds.Value != 2e9 || len(st.Containers) != 0 {
			t.Errorf("after a removal: %v", st)
		}
	})
}

func TestAContainerThatAPluginHasPutElsewhereCountsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "")
		n.addContainer("c", "p")
		n.addContainer("moved", "p").CgroupsPath = "/special/m"
		n.use("berth/p", 5000, 500)
		n.write("berth/p", map[string]string{"cgroup.procs": ""})
		n.use("berth/p/c", 5000, 500)
		n.use("special/m", 1000, 100)
		check := func(when string, cpu, memory, processes uint64, containers int) {
			t.Helper()
			st := n.pod("p").Linux
			if st.Cpu.UsageCoreNanoSeconds.Value != cpu || st.Memory.UsageBytes.Value != memory || st.Process.ProcessCount.Value != processes || len(st.Containers) != containers || st.Memory.AvailableBytes == nil {
				t.Errorf("%s: %v", when, st)
			}
		}
		check("at first", 6e9, 600, 4, 2)
		if got := n.container("moved").Memory.UsageBytes.GetValue(); got != 100 {
			t.Errorf("the container has %d", got)
		}
		pods, err := n.Metrics(t.Context())
		if err != nil || len(pods) != 1 || !has(pods[0].Metrics, "container_cpu_usage_seconds_total", 6) || !has(pods[0].ContainerMetrics[1].Metrics, "container_cpu_usage_seconds_total", 1) {
			t.Errorf("%v, %v", pods, err)
		}
		pass()
		n.remove("special/m")
		check("after its removal", 6e9, 500, 2, 1)
		n.end("moved")
		pass()
		check("after its end", 6e9, 500, 2, 1)
	})
}

func has(all []*cri.Metric, name string, v uint64) bool {
	return slices.ContainsFunc(all, func(m *cri.Metric) bool { return m.Name == name && m.Value.GetValue() == v })
}

func TestAPodsFirstProcessCountsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		for _, p := range []*pod.Sandbox{n.addPod("p", "/mine"), n.addPod("q", "")} {
			p.Config.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_POD}}
			n.addContainer("c"+p.ID, p.ID)
		}
		n.use("mine/p", 1000, 100)
		n.use("mine/cp", 1000, 100)
		if st := n.pod("p").Linux; st.Cpu.UsageCoreNanoSeconds.Value != 2e9 || st.Memory.UsageBytes.Value != 200 || st.Process.ProcessCount.Value != 4 {
			t.Errorf("in a cgroup that others share: %v", st)
		}
		n.use("berth/q", 5000, 500)
		n.write("berth/q", map[string]string{"cgroup.procs": ""})
		n.use("berth/q/q", 1000, 100)
		n.use("berth/q/cq", 1000, 100)
		pass()
		if st := n.pod("q").Linux; st.Cpu.UsageCoreNanoSeconds.Value != 5e9 || st.Memory.UsageBytes.Value != 500 || st.Process.ProcessCount.Value != 4 {
			t.Errorf("in its own cgroup: %v", st)
		}
	})
}

func TestWhatIsGoneIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "")
		n.addPod("q", "")
		n.addContainer("c", "p")
		n.addContainer("d", "q")
		n.use("berth/q", 0, 0)
		n.use("berth/q/d", 0, 0)
		pods, err := n.PodList(t.Context(), nil)
		if err != nil || len(pods) != 1 || pods[0].Attributes.Id != "q" {
			t.Errorf("%v, %v", pods, err)
		}
		all, err := n.ContainerList(t.Context(), nil)
		if err != nil || len(all) != 1 || all[0].Attributes.Id != "d" {
			t.Errorf("%v, %v", all, err)
		}
		if _, err := n.Container(t.Context(), "c"); !errors.Is(err, errs.NotFound) {
			t.Errorf("a container that is gone: %v", err)
		}
		if _, err := n.Pod(t.Context(), "p"); !errors.Is(err, errs.NotFound) {
			t.Errorf("a pod that is gone: %v", err)
		}
		n.end("d")
		if all, err = n.ContainerList(t.Context(), nil); err != nil || len(all) != 0 {
			t.Errorf("after the end: %v, %v", all, err)
		}
		if st := n.container("d"); st.Cpu != nil || st.Attributes.Id != "d" {
			t.Errorf("of one that has ended: %v", st)
		}
	})
}

func TestListsAreFiltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		for _, p := range []string{"p1", "p2"} {
			n.addPod(p, "")
			n.addContainer("c"+p, p)
			n.use("berth/"+p, 0, 0)
			n.use("berth/"+p+"/c"+p, 0, 0)
		}
		n.pods[1].NetNS = "" // the host's
		for name, c := range map[string]struct {
			f    *cri.ContainerStatsFilter
			want int
		}{
			"all": {nil, 2}, "id": {&cri.ContainerStatsFilter{Id: "cp1"}, 1}, "pod": {&cri.ContainerStatsFilter{PodSandboxId: "p2"}, 1},
			"label": {&cri.ContainerStatsFilter{LabelSelector: map[string]string{"c": "cp2"}}, 1}, "none": {&cri.ContainerStatsFilter{Id: "cp1", PodSandboxId: "p2"}, 0},
		} {
			if got, err := n.ContainerList(t.Context(), c.f); err != nil || len(got) != c.want {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		got, err := n.PodList(t.Context(), &cri.PodSandboxStatsFilter{LabelSelector: map[string]string{"pod": "p2"}})
		if err != nil || len(got) != 1 || got[0].Linux.Network != nil {
			t.Errorf("%v, %v", got, err)
		}
		n.pods[0].State = pod.NotReady
		if got, err = n.PodList(t.Context(), nil); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
		if st := n.pod("p1"); st.Linux.Cpu != nil || st.Attributes.Id != "p1" {
			t.Errorf("a pod that is not ready: %v", st)
		}
	})
}

func TestWhatContainersWriteIsMeasuredWhileSomebodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.addPod("p", "")
		n.addContainer("c", "p")
		n.use("berth/p", 0, 0)
		n.use("berth/p/c", 0, 0)
		var run sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		run.Go(func() { _ = n.Run(ctx) })
		defer run.Wait()
		defer cancel()
		used := func() uint64 { return n.container("c").WritableLayer.GetUsedBytes().GetValue() }
		if got := used(); got != 0 {
			t.Errorf("before anything is known: %d", got)
		}
		n.mu.Lock()
		n.written["c"] = 5
		n.mu.Unlock()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := used(); got != 5 {
			t.Errorf("after a while: %d", got)
		}
	})
}

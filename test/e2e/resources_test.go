package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pid is the container's first process.
func (c *ctr) pid() int {
	c.t.Helper()
	r, err := berth.Runtime.ContainerStatus(c.t.Context(), &cri.ContainerStatusRequest{ContainerId: c.id, Verbose: true})
	if err != nil {
		c.t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil {
		c.t.Fatal(err)
	}
	return info.Pid
}

func (c *ctr) wantLimits(want map[string]string) {
	c.t.Helper()
	got := map[string]string{}
	for file := range want {
		got[file] = c.limit(file)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Error(diff)
	}
}

func (c *ctr) update(r *cri.LinuxContainerResources) error {
	_, err := berth.Runtime.UpdateContainerResources(c.t.Context(), &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: r})
	return err
}

func TestLimitsAreTheKernelsAndCanBeChanged(t *testing.T) {
	p := runPod(t)
	config := sleeper()
	config.Linux.Resources = &cri.LinuxContainerResources{
		CpuPeriod: 50000, CpuQuota: 25000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20,
		CpusetCpus: "0", CpusetMems: "0", OomScoreAdj: 500,
	}
	c := p.start(config)
	want := map[string]string{
		"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "25000", "cpu.shares": "512", "memory.limit_in_bytes": "67108864",
		"cpuset.cpus": "0", "cpuset.mems": "0",
	}
	if c.limitsSwap() {
		want["memory.memsw.limit_in_bytes"] = "100663296"
	}
	c.wantLimits(want)
	if diff := cmp.Diff(config.Linux.Resources, c.status().Resources.Linux, protocmp.Transform()); diff != "" {
		t.Errorf("status: %s", diff)
	}
	if err := c.update(&cri.LinuxContainerResources{CpuShares: 2048, MemoryLimitInBytes: 32 << 20, CpuQuota: 75000, CpusetCpus: "0-1", OomScoreAdj: 600}); err != nil {
		t.Fatal(err)
	}
	want["cpu.shares"], want["memory.limit_in_bytes"], want["cpu.cfs_quota_us"], want["cpuset.cpus"] = "2048", "33554432", "75000", "0-1"
	if c.limitsSwap() {
		want["memory.memsw.limit_in_bytes"] = "33554432"
	}
	c.wantLimits(want)
	if score := c.oomScore(); score != "600" {
		t.Errorf("OOM score %s", score)
	}
	if got := c.status().Resources.Linux; got.CpuShares != 2048 || got.CpuPeriod != 50000 || got.MemoryLimitInBytes != 32<<20 || got.CpusetMems != "0" || got.CpusetCpus != "0-1" {
		t.Errorf("status after the update: %v", got)
	}
	if err := c.update(&cri.LinuxContainerResources{CpuQuota: -1}); err != nil {
		t.Fatal(err)
	}
	if got := c.limit("cpu.cfs_quota_us"); got != "-1" {
		t.Errorf("quota %s after it was lifted", got)
	}
}

func TestAnUpdateLeavesWhatItDoesNotName(t *testing.T) {
	config := sleeper()
	pages := []*cri.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}}
	config.Linux.Resources = &cri.LinuxContainerResources{
		CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20, HugepageLimits: pages,
	}
	c := runPod(t).start(config)
	swap, follows := int64(128<<20), int64(32<<20)
	if !c.limitsSwap() {
		follows = 0 // nothing is in force
	}
	for _, k := range []struct {
		update, status *cri.LinuxContainerResources
		limits         map[string]string
	}{
		{
			&cri.LinuxContainerResources{MemorySwapLimitInBytes: swap},
			&cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: swap, HugepageLimits: pages},
			map[string]string{"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "134217728"},
		},
		{
			&cri.LinuxContainerResources{MemoryLimitInBytes: 32 << 20},
			&cri.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: follows, HugepageLimits: pages},
			map[string]string{"memory.limit_in_bytes": "33554432", "memory.memsw.limit_in_bytes": "33554432"},
		},
		{
			&cri.LinuxContainerResources{CpuPeriod: 62500, CpusetMems: "0", HugepageLimits: pages[1:]},
			&cri.LinuxContainerResources{CpuPeriod: 62500, CpuQuota: 50000, CpusetMems: "0", MemoryLimitInBytes: 32 << 20, MemorySwapLimitInBytes: follows, HugepageLimits: pages},
			map[string]string{"cpu.cfs_period_us": "62500", "cpu.cfs_quota_us": "50000", "cpuset.mems": "0", "memory.limit_in_bytes": "33554432"},
		},
	} {
		if err := c.update(k.update); err != nil {
			t.Fatalf("%v: %v", k.update, err)
		}
		if diff := cmp.Diff(k.status, c.status().Resources.Linux, protocmp.Transform()); diff != "" {
			t.Errorf("status after %v (-want +got):\n%s", k.update, diff)
		}
		if !c.limitsSwap() {
			delete(k.limits, "memory.memsw.limit_in_bytes")
		}
		c.wantLimits(k.limits)
	}
	if err := c.update(&cri.LinuxContainerResources{MemorySwapLimitInBytes: 16 << 20}); code(err) != codes.InvalidArgument {
		t.Errorf("swap below the container's memory: %v", err)
	}
}

func TestACreatedContainerCanBeUpdatedAndAnEndedOneCannot(t *testing.T) {
	p := runPod(t)
	c := p.create(sleeper())
	if err := c.update(&cri.LinuxContainerResources{CpuShares: 300}); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.wantLimits(map[string]string{"cpu.shares": "300"})
	c.stop(0)
	if err := c.update(&cri.LinuxContainerResources{CpuShares: 400}); code(err) != codes.FailedPrecondition {
		t.Errorf("after its end: %v", err)
	}
	_, err := berth.Runtime.UpdateContainerResources(t.Context(), &cri.UpdateContainerResourcesRequest{ContainerId: "0123", Linux: &cri.LinuxContainerResources{}})
	if code(err) != codes.NotFound {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestLimitsThatCannotHoldAreRefused(t *testing.T) {
	p := runPod(t)
	c := p.start(sleeper())
	for name, k := range map[string]struct {
		r    *cri.LinuxContainerResources
		want codes.Code
	}{
		"swap below memory":    {&cri.LinuxContainerResources{MemoryLimitInBytes: 2 << 20, MemorySwapLimitInBytes: 1 << 20}, codes.InvalidArgument},
		"swap without memory":  {&cri.LinuxContainerResources{MemorySwapLimitInBytes: 1 << 30}, codes.InvalidArgument},
		"cpuset":               {&cri.LinuxContainerResources{CpusetCpus: "0;1"}, codes.InvalidArgument},
		"negative shares":      {&cri.LinuxContainerResources{CpuShares: -5}, codes.InvalidArgument},
		"huge pages":           {&cri.LinuxContainerResources{HugepageLimits: []*cri.HugepageLimit{{PageSize: "3MB", Limit: 1}}}, codes.FailedPrecondition},
		"unified on version 1": {&cri.LinuxContainerResources{Unified: map[string]string{"memory.high": "1048576"}}, codes.FailedPrecondition},
	} {
		if name == "unified on version 1" && cgroup2() {
			continue
		}
		config := sh("true")
		config.Linux.Resources = k.r
		if err := p.createError(config); code(err) != k.want {
			t.Errorf("create with %s: %v", name, err)
		}
		if err := c.update(k.r); code(err) != k.want {
			t.Errorf("update with %s: %v", name, err)
		}
	}
	config := sh("true") // what kubelet sends for each size that it knows of
	config.Linux.Resources.HugepageLimits = []*cri.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}, {PageSize: "64KB"}}
	if s := p.start(config).await(); s.ExitCode != 0 {
		t.Errorf("limits of no huge pages: %v", s)
	}
}

func TestUnifiedKeysAreWritten(t *testing.T) {
	if !cgroup2() {
		t.Skip("unified resources are those of cgroup version 2; this machine has version 1, where they are refused (see above)")
	}
	config := sleeper()
	config.Linux.Resources.Unified = map[string]string{"memory.high": "67108864"}
	c := runPod(t).start(config)
	c.wantLimits(map[string]string{"memory.high": "67108864"})
	if err := c.update(&cri.LinuxContainerResources{Unified: map[string]string{"memory.low": "1048576"}}); err != nil {
		t.Fatal(err)
	}
	c.wantLimits(map[string]string{"memory.high": "67108864", "memory.low": "1048576"})
}

func TestTheOOMScoreIsWithinWhatTheHostAllows(t *testing.T) {
	p := runPod(t)
	for score, want := range map[int64]string{0: "0", 999: "999", 1000: "1000", 5000: "1000"} {
		config := sh("cat /proc/self/oom_score_adj")
		config.Linux.Resources.OomScoreAdj = score
		if out := p.start(config).output(); out != want {
			t.Errorf("score %d: got %s", score, out)
		}
	}
	config := sh("cat /proc/self/oom_score_adj")
	config.Linux.Resources.OomScoreAdj = -998
	if out := p.start(config).output(); out != "-998" && out != "0" { // without CAP_SYS_RESOURCE it cannot be lowered
		t.Errorf("score -998: got %s", out)
	}
}

func TestTheConfigurationsLimitsHoldForEveryContainer(t *testing.T) {
	c := runPod(t).start(sleeper())
	if out := c.sh("ulimit -Sn; ulimit -Hn; ulimit -c"); out != "1000\n2000\n0" {
		t.Errorf("limits %q", out)
	}
	c.wantLimits(map[string]string{"pids.max": "500"})
}

func TestTooManyProcessesFailInTheContainerOnly(t *testing.T) {
	c := runPod(t).start(sh("trap '' TERM; i=0; while [ $i -lt 600 ]; do sleep 100 & i=$((i+1)); done; wait"))
	eventually(t, func() error { return wantText(c.written(), "can't fork") })
	if s := c.status(); s.State == cri.ContainerState_CONTAINER_UNKNOWN {
		t.Errorf("status %v", s)
	}
	c.stop(0)
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_EXITED {
		t.Errorf("after the stop: %v", s)
	}
}

func TestCgroupsLieInKubeletsOrInOurs(t *testing.T) {
	parent, path := kubepods(t, "pod1")
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = parent })
	c := p.start(sleeper())
	if got, want := c.cgroup("memory"), hierarchy("memory")+path+"/"+c.group(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	p.stop()
	for _, controller := range []string{"memory", "cpu", "systemd"} {
		left, err := filepath.Glob(hierarchy(controller) + path + "/*/")
		if err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", controller, left, err)
		}
		if _, err := os.Stat(hierarchy(controller) + path); err != nil {
			t.Errorf("kubelet's cgroup is gone: %v", err)
		}
	}
	q := runPod(t)
	c = q.start(sleeper())
	own := filepath.Dir(c.cgroup("memory"))
	if want := hierarchy("memory") + q.home(); own != want {
		t.Errorf("got %s, want %s", own, want)
	}
	q.stop()
	if _, err := os.Stat(own); err == nil {
		t.Errorf("%s is left", own)
	}
}

// removeTree removes empty cgroups, the innermost first.
func removeTree(t *testing.T, pattern string) {
	t.Helper()
	roots, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		var dirs []string
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append([]string{path}, dirs...)
			}
			return nil
		})
		for _, d := range dirs {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestMemoryEndsOneContainerNotItsPod(t *testing.T) {
	p := runPod(t)
	neighbour := p.start(sleeper())
	hungry := sh("sleep 1000 & tail /dev/zero")
	hungry.Linux.Resources.MemoryLimitInBytes = 20 << 20
	c := p.start(hungry)
	// The kernel kills the largest process; the shell then ends with its code.
	if s := c.await(); s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("%v", s)
	}
	if s := neighbour.status(); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("neighbour: %v", s)
	}
	if s := p.status(); s.State != cri.PodSandboxState_SANDBOX_READY {
		t.Errorf("pod: %v", s)
	}
}

// kubelet asks for it where it has version 2, so that no container lives on in part.
func TestMemoryEndsAllOfAContainerIfAsked(t *testing.T) {
	if !cgroup2() {
		t.Skip("memory.oom.group is of cgroup version 2; this machine has version 1")
	}
	p := runPod(t)
	neighbour := p.start(sleeper())
	config := sh("tail /dev/zero & wait; sleep 1000")
	config.Linux.Resources.MemoryLimitInBytes = 20 << 20
	config.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	for range 2 { // what systemd calls a failed unit is none in the next one's way
		c := p.start(config)
		if s := c.await(); s.Reason != "OOMKilled" || s.ExitCode != 137 {
			t.Errorf("%v", s)
		}
		if _, err := berth.Runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
			t.Fatal(err)
		}
	}
	if s := neighbour.status(); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("neighbour: %v", s)
	}
	if !systemd(t) {
		return
	}
	if out, err := exec.Command("systemctl", "list-units", "--no-legend", "--state=failed", "berth-*").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("failed units: %s, %v", out, err)
	}
}

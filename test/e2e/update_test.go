package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (c *ctr) oomScore() string {
	c.t.Helper()
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(score))
}

func TestARefusedUpdateLeavesAllAsItWas(t *testing.T) {
	config := sleeper()
	config.Linux.Resources = &cri.LinuxContainerResources{CpuShares: 512, OomScoreAdj: 500}
	c := runPod(t).start(config)
	files := []string{"memory.limit_in_bytes", "cpu.shares", "cpu.cfs_quota_us"}
	before := map[string]string{}
	for _, f := range files {
		before[f] = c.limit(f)
	}
	// The kernel takes all but the quota, which is below its minimum.
	err := c.update(&cri.LinuxContainerResources{CpuShares: 600, CpuQuota: 1, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 600})
	if err == nil {
		t.Error("no refusal")
	}
	holds := func(when string) {
		t.Helper()
		c.wantLimits(before)
		if got := c.oomScore(); got != "500" {
			t.Errorf("%s: OOM score %s", when, got)
		}
		if diff := cmp.Diff(config.Linux.Resources, c.status().Resources.Linux, protocmp.Transform()); diff != "" {
			t.Errorf("%s: status: %s", when, diff)
		}
	}
	holds("after the refusal")
	withoutDaemon(t, berth.Kill, func() {})
	holds("after a restart")
	if err := c.update(&cri.LinuxContainerResources{OomScoreAdj: 600}); err != nil {
		t.Fatal(err)
	}
	if got := c.oomScore() + " " + c.sh("cat /proc/self/oom_score_adj"); got != "600 600" {
		t.Errorf("OOM scores of the container and of an exec: %s", got)
	}
}

func TestMemoryInUseIsNotTakenAway(t *testing.T) {
	config := sleeper()
	config.Linux.Resources.MemoryLimitInBytes = 128 << 20
	c := runPod(t).start(config)
	c.sh("head -c 40000000 /dev/zero >/dev/shm/held")
	lower := &cri.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	err := c.update(lower)
	if code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "limit of 16777216 bytes") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
	c.wantLimits(map[string]string{"memory.limit_in_bytes": "134217728"})
	if s := c.status(); s.State != cri.ContainerState_CONTAINER_RUNNING || s.Resources.Linux.MemoryLimitInBytes != 128<<20 {
		t.Errorf("status %v", s)
	}
	c.sh("rm /dev/shm/held")
	if err := c.update(lower); err != nil {
		t.Error(err)
	}
	c.wantLimits(map[string]string{"memory.limit_in_bytes": "16777216"})
}

func TestUpdatedLimitsOutliveTheDaemon(t *testing.T) {
	config := sleeper()
	config.Linux.Resources.HugepageLimits = []*cri.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}}
	c := runPod(t).start(config)
	all := &cri.LinuxContainerResources{
		CpuPeriod: 50000, CpuQuota: 25000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 96 << 20,
		CpusetCpus: "0", CpusetMems: "0", OomScoreAdj: 500, HugepageLimits: []*cri.HugepageLimit{{PageSize: "1GB"}},
	}
	if err := c.update(all); err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(all)
	want.HugepageLimits = config.Linux.Resources.HugepageLimits
	files := map[string]string{
		"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "25000", "cpu.shares": "512", "memory.limit_in_bytes": "67108864",
		"cpuset.cpus": "0", "cpuset.mems": "0",
	}
	holds := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, c.status().Resources.Linux, protocmp.Transform()); diff != "" {
			t.Errorf("%s: status (-want +got):\n%s", when, diff)
		}
		c.wantLimits(files)
	}
	holds("updated")
	withoutDaemon(t, berth.Kill, func() {})
	holds("after a restart")
	if err := c.update(&cri.LinuxContainerResources{CpuShares: 2048}); err != nil {
		t.Fatal(err)
	}
	want.CpuShares, files["cpu.shares"] = 2048, "2048"
	holds("updated after a restart")
}

func TestResourcesOfAPodOutliveTheDaemon(t *testing.T) {
	given := &cri.LinuxContainerResources{CpuShares: 100, MemoryLimitInBytes: 1 << 30}
	p := runPod(t, func(c *cri.PodSandboxConfig) { c.Linux.Overhead, c.Linux.Resources = given, given })
	c := p.start(sleeper())
	memory := c.limit("memory.limit_in_bytes")
	update := &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id, Resources: &cri.LinuxContainerResources{CpuShares: 200, MemoryLimitInBytes: 2 << 30}}
	if _, err := berth.Runtime.UpdatePodSandboxResources(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	holds := func(when string) {
		t.Helper()
		r, err := berth.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ Config json.RawMessage }
		got := &cri.PodSandboxConfig{}
		if err := errors.Join(json.Unmarshal([]byte(r.Info["info"]), &info), protojson.Unmarshal(info.Config, got)); err != nil {
			t.Fatal(err)
		}
		want := proto.CloneOf(p.config)
		want.Linux.Resources = update.Resources
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
		c.wantLimits(map[string]string{"memory.limit_in_bytes": memory}) // a container's are its own
	}
	holds("updated")
	withoutDaemon(t, berth.Kill, func() {})
	holds("after a restart")
	update.PodSandboxId = "0123"
	if _, err := berth.Runtime.UpdatePodSandboxResources(t.Context(), update); code(err) != codes.NotFound {
		t.Errorf("a pod that is not there: %v", err)
	}
}

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What an administrator does to systemd, or a package that is installed, is to
// change nothing for containers: their devices, limits, and that they run.
func TestSystemdTakesNothingFromAContainerWhenItReloads(t *testing.T) {
	if !systemd(t) {
		t.Skip("cgroups are made in the file system here; make vm has them made by systemd")
	}
	config := sleeper()
	config.Devices = []*cri.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/my-zero", Permissions: "rw"}}
	config.Linux.Resources = &cri.LinuxContainerResources{
		CpuPeriod: 50000, CpuQuota: 25000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20, CpusetCpus: "0",
		Unified: map[string]string{"memory.high": "50331648", "io.weight": "default 50"},
	}
	c := runPod(t).start(config)
	look := func() string {
		var out strings.Builder
		for _, file := range []string{"cpu.max", "cpu.weight", "memory.max", "memory.high", "memory.swap.max", "cpuset.cpus", "io.weight", "pids.max"} {
			out.WriteString(file + " " + content(c.cgroup("memory"), file) + "\n")
		}
		return out.String() + c.sh("head -c4 /dev/my-zero | wc -c; head -c4 /dev/urandom | wc -c; mknod /tmp/mem c 1 1; cat /tmp/mem 2>&1; rm -f /tmp/mem")
	}
	before := look()
	if want := "memory.swap.max 0\n"; !strings.Contains(before, want) || !strings.Contains(before, "4\n4\n") || !strings.Contains(before, "not permitted") {
		t.Errorf("before: %s", before)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"daemon-reexec"}, {"set-property", "--runtime", c.group(), "Description=changed", "IOWeight=50"}} {
		if out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput(); err != nil {
			t.Fatalf("systemctl %v: %v: %s", args, err, out)
		}
		if after := look(); after != before {
			t.Errorf("after %v:\n%s\nbefore:\n%s", args, after, before)
		}
	}
}

// An update that is refused leaves nothing behind that systemd would write later.
func TestSystemdForgetsWhatWasRefused(t *testing.T) {
	if !systemd(t) {
		t.Skip("cgroups are made in the file system here; make vm has them made by systemd")
	}
	config := sleeper()
	config.Linux.Resources = &cri.LinuxContainerResources{}
	c := runPod(t).start(config)
	look := func() string {
		t.Helper()
		// systemd writes all limits of memory where one of them changes.
		if out, err := exec.CommandContext(t.Context(), "systemctl", "set-property", "--runtime", c.group(), "MemoryLow=1M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var out strings.Builder
		for _, file := range []string{"cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max"} {
			out.WriteString(file + " " + content(c.cgroup("memory"), file) + "\n")
		}
		return out.String()
	}
	before := look()
	update := func(r *cri.LinuxContainerResources) error {
		_, err := berth.Runtime.UpdateContainerResources(t.Context(), &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: r})
		return err
	}
	bad := &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuShares: 512, CpuPeriod: 100000, CpuQuota: 50000, Unified: map[string]string{"memory.oom.group": "7"}}
	if err := update(bad); err == nil { // by the kernel, after systemd has been told
		t.Error("nonsense is taken")
	}
	if after := look(); after != before {
		t.Errorf("after a refusal:\n%s\nbefore:\n%s", after, before)
	}
	if err := update(&cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, MemorySwapLimitInBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	if after := look(); !strings.Contains(after, "memory.max 67108864\n") || !strings.Contains(after, "memory.swap.max 0\n") {
		t.Errorf("after an update:\n%s", after)
	}
}

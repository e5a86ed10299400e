package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/test/testutil"
)

// cgroup2 tells whether the machine has every controller in version 2.
func cgroup2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// hierarchy is where the cgroups of a controller are mounted.
func hierarchy(controller string) string {
	if cgroup2() {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/" + controller
}

// cgroup is where the container is in the hierarchy of a controller.
func (c *ctr) cgroup(controller string) string {
	c.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) { // 4:cpu,cpuacct:/path, and 0::/path in version 2
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if cgroup2() && f[0] == "0" || slices.Contains(strings.Split(f[1], ","), controller) {
			return filepath.Join(hierarchy(controller), f[2])
		}
	}
	testutil.Need(c.t, false, "a cgroup hierarchy of "+controller)
	return ""
}

// systemd tells whether cgroups are made by systemd.
func systemd(t *testing.T) bool {
	t.Helper()
	r, err := berth.Runtime.RuntimeConfig(t.Context(), &cri.RuntimeConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Linux.CgroupDriver == cri.CgroupDriver_SYSTEMD
}

// kubepods is a cgroup that plays kubelet's, which are kubelet's to remove: in the
// words of CRI, and below a hierarchy.
func kubepods(t *testing.T, pod string) (parent, path string) {
	t.Helper()
	if !systemd(t) {
		t.Cleanup(func() {
			removeTree(t, "/sys/fs/cgroup/*/e2e-kubepods")
			removeTree(t, "/sys/fs/cgroup/e2e-kubepods")
		})
		path = "/e2e-kubepods/burstable/" + pod
		return path, path
	}
	const top = "e2ekubepods"
	t.Cleanup(func() {
		if out, err := exec.Command("systemctl", "stop", top+".slice").CombinedOutput(); err != nil {
			t.Errorf("stop %s.slice: %v: %s", top, err, out)
		}
	})
	parent = top + "-burstable-" + pod + ".slice"
	return parent, "/" + top + ".slice/" + top + "-burstable.slice/" + parent
}

// home is where a pod's cgroups are where nobody says so, below a hierarchy.
func (p *pod) home() string {
	p.t.Helper()
	if systemd(p.t) {
		return "/berth.slice/berth-" + p.id + ".slice"
	}
	return "/berth/" + p.id
}

// group is the name of the container's cgroup.
func (c *ctr) group() string {
	c.t.Helper()
	if systemd(c.t) {
		return "berth-" + c.id + ".scope"
	}
	return c.id
}

// limit reads a limit, by the name of its file in version 1.
func (c *ctr) limit(file string) string {
	c.t.Helper()
	controller, _, _ := strings.Cut(file, ".")
	dir := c.cgroup(controller)
	if cgroup2() {
		return limit2(dir, file)
	}
	return content(dir, file)
}

// content is a file's text, or that it is missing.
func content(dir, file string) string {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return "missing"
	}
	return strings.TrimSpace(string(data))
}

// shares are the tests' CPU shares by the weight that stands for them in
// version 2.
var shares = map[string]string{"39": "300", "59": "512", "174": "2048"}

// limit2 reads a cgroup of version 2 for a file of version 1.
func limit2(dir, file string) string {
	quota, period, _ := strings.Cut(content(dir, "cpu.max"), " ")
	switch file {
	case "cpu.cfs_period_us":
		return period
	case "cpu.cfs_quota_us":
		if quota == "max" {
			return "-1"
		}
		return quota
	case "cpu.shares":
		return shares[content(dir, "cpu.weight")]
	case "memory.limit_in_bytes":
		return content(dir, "memory.max")
	case "memory.memsw.limit_in_bytes": // of both together
		memory, _ := strconv.Atoi(content(dir, "memory.max")) // 0 is no sum that a test wants
		swap, _ := strconv.Atoi(content(dir, "memory.swap.max"))
		return strconv.Itoa(memory + swap)
	default:
		return content(dir, file)
	}
}

// limitsSwap tells whether this kernel limits the container's swap.
func (c *ctr) limitsSwap() bool {
	c.t.Helper()
	dir := c.cgroup("memory")
	return content(dir, "memory.memsw.limit_in_bytes") != "missing" || content(dir, "memory.swap.max") != "missing"
}

func TestLimitsOfVersion2AreReadByTheirNamesInVersion1(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{"cpu.max": "75000 50000", "cpu.weight": "59", "memory.max": "67108864", "memory.swap.max": "33554432", "pids.max": "500"} {
		write(t, filepath.Join(dir, file), text+"\n")
	}
	for file, want := range map[string]string{
		"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "75000", "cpu.shares": "512", "memory.limit_in_bytes": "67108864",
		"memory.memsw.limit_in_bytes": "100663296", "pids.max": "500", "cpuset.cpus": "missing",
	} {
		if got := limit2(dir, file); got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
	write(t, filepath.Join(dir, "cpu.max"), "max 100000\n")
	if got := limit2(dir, "cpu.cfs_quota_us"); got != "-1" {
		t.Errorf("no quota: %s", got)
	}
}

// Version 2 enables no controllers below a cgroup that has processes: the tests
// are in a leaf. On a hybrid machine its hierarchy lies in unified.
func TestNoProcessIsAtTheTopOfVersion2(t *testing.T) {
	if systemd(t) {
		t.Skip("the machine's own root, where the kernel's threads are")
	}
	top := "/sys/fs/cgroup"
	if !cgroup2() {
		top = "/sys/fs/cgroup/unified"
	}
	procs := content(top, "cgroup.procs")
	if procs == "missing" {
		t.Skip("no hierarchy of version 2")
	}
	if procs != "" {
		t.Errorf("processes %q", procs)
	}
}

package host

import (
	"fmt"
	"strings"
)

// Advice is something that the host lacks, in words for who can change it.
type Advice struct {
	// Needed tells that pods do not run without it; else some feature is missing.
	Needed bool
	// What is wrong, and what to Do about it.
	What, Do string
}

// controllers are what limits of containers need, with what is lost without.
var controllers = []struct {
	name   string
	needed bool
	lost   string
}{
	{"cpu", true, "CPU requests and limits"},
	{"memory", true, "memory limits"},
	{"pids", true, "limits of processes"},
	{"cpuset", false, "pinning to CPUs, as kubelet's static CPU manager does"},
	{"hugetlb", false, "limits of huge pages"},
}

// Advise says what this host lacks. The most important comes first.
func (f Facts) Advise() []Advice {
	var all []Advice
	lacks := func(has, needed bool, what, do string) {
		if !has {
			all = append(all, Advice{needed, what, do})
		}
	}
	lacks(f.Overlay, true, "the kernel has no overlay file system: containers have no root file system", "modprobe overlay, and name it in /etc/modules-load.d")
	for _, c := range controllers {
		lacks(f.HasController(c.name), c.needed, fmt.Sprintf("cgroup controller %s is not usable: no %s", c.name, c.lost), f.enable(c.name))
	}
	lacks(f.Seccomp, false, "the kernel has no seccomp: profiles of containers cannot be applied, and containers that ask for one fail", "use a kernel with CONFIG_SECCOMP_FILTER")
	lacks(f.RecursiveReadOnly, false, "the kernel has no mount_setattr: no recursive read-only mounts, no user namespaces of pods", "use Linux 5.12 or newer")
	lacks(f.UserNamespaces, false, "user namespaces are off: pods with hostUsers: false fail", "set sysctl user.max_user_namespaces above 0")
	lacks(f.OverlayIDMap || !f.IDMapMounts, false, "overlay takes no idmapped layers: pods with hostUsers: false fail", "use Linux 5.19 or newer")
	lacks(f.Swap, false, "cgroups do not limit swap", "boot with swapaccount=1, or use cgroup version 2")
	lacks(f.CgroupV2, false, "cgroups are of version 1: no memory QoS, no pressure figures, and kubelet is giving version 1 up", "boot with systemd.unified_cgroup_hierarchy=1")
	lacks(f.Kernel.AtLeast(6, 12), false, fmt.Sprintf("Linux %s cannot mount EROFS images from files: layers need loop devices, or are directories", f.Kernel), "use Linux 6.12 or newer")
	lacks(f.PidfdExitInfo, false, fmt.Sprintf("Linux %s forgets how a process ended: of a container that runs on while both processes of berth-runtime are killed, the exit code is lost", f.Kernel), "use Linux 6.15 or newer")
	lacks(f.HasCapability("CAP_SYS_RESOURCE"), false, "berthd lacks CAP_SYS_RESOURCE: oom_score_adj and hard limits of containers are lowered to what it may give", "run berthd and berth-runtime with all capabilities")
	lacks(f.HasCapability("CAP_SYS_ADMIN"), true, "berthd lacks CAP_SYS_ADMIN: it cannot mount", "run berthd as root, with all capabilities")
	return all
}

// enable says how a controller becomes usable.
func (f Facts) enable(controller string) string {
	if f.CgroupV2 {
		return fmt.Sprintf("echo +%s > %s/cgroup.subtree_control; if that fails, look for cgroup_disable= in /proc/cmdline", controller, f.CgroupRoot)
	}
	return fmt.Sprintf("mkdir -p %[2]s/%[1]s && mount -t cgroup -o %[1]s cgroup %[2]s/%[1]s; if that fails, the kernel is without it (no line in /proc/cgroups), or /proc/cmdline has cgroup_disable=", controller, f.CgroupRoot)
}

// Sysctls are kernel settings that pods' networks need.
func Sysctls(read func(path string) string) []Advice {
	var all []Advice
	for _, s := range []struct{ name, want, lost string }{
		{"net.ipv4.ip_forward", "1", "pods reach nothing beyond this host"},
		{"net.bridge.bridge-nf-call-iptables", "1", "services do not reach pods of the same bridge"},
	} {
		value := read("/proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
		if value == "" || value == s.want {
			continue // it is not there without its module, which network add-ons load
		}
		all = append(all, Advice{What: fmt.Sprintf("sysctl %s is %s: %s", s.name, value, s.lost), Do: fmt.Sprintf("sysctl -w %s=%s, and a file in /etc/sysctl.d", s.name, s.want)})
	}
	return all
}

// ReadText returns a small file's text without surrounding space, or "".
func ReadText(path string) string { return read(path) }

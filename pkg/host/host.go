// Package host tells what this node can do: the kernel's features, the cgroup
// layout, the security modules, the capabilities that this process holds, and
// facts about single paths (propagation, device nodes).
//
// Probe asks the kernel rather than comparing versions wherever asking is
// cheap, takes well under 5 ms, and remembers its answer for the life of the
// process. The package changes nothing on the host but for EnsureSource, which
// makes a missing bind mount source when it is called.
package host

import (
	"os"
	"slices"
	"strings"
	"sync"
)

// Facts is what Probe found. It is a plain value: tests of pure code write
// their own. The zero value is a host that has nothing.
type Facts struct {
	Kernel   Kernel `json:"kernel"`
	Hostname string `json:"hostname"`

	// CgroupV2 tells that every controller is on the unified hierarchy.
	CgroupV2 bool `json:"cgroupV2"`
	// CgroupHybrid tells of version 1 controllers beside an own version 2
	// mount, as systemd's hybrid mode lays them out.
	CgroupHybrid bool `json:"cgroupHybrid"`
	// CgroupRoot is where the hierarchies are mounted.
	CgroupRoot string `json:"cgroupRoot"`
	// Controllers are the usable cgroup controllers, sorted.
	Controllers []string `json:"controllers"`
	// Swap tells that cgroups can limit swap.
	Swap bool `json:"swap"`
	// HugepageSizes in cgroup form, such as 2MB and 1GB.
	HugepageSizes []string `json:"hugepageSizes"`

	// Overlay tells of the overlay file system (Linux 3.18).
	Overlay bool `json:"overlay"`
	// RecursiveReadOnly tells of mount_setattr with AT_RECURSIVE (Linux 5.12).
	RecursiveReadOnly bool `json:"recursiveReadOnly"`
	// IDMapMounts tells of idmapped mounts (Linux 5.12).
	IDMapMounts bool `json:"idmapMounts"`
	// OverlayIDMap tells that overlay takes idmapped lower layers (Linux 5.19).
	OverlayIDMap bool `json:"overlayIdmap"`
	// UserNamespaces tells that user namespaces can be made (Linux 3.8).
	UserNamespaces bool `json:"userNamespaces"`
	// PidfdExitInfo tells that a pidfd keeps its exit code (Linux 6.15).
	PidfdExitInfo bool `json:"pidfdExitInfo"`

	Seccomp  bool `json:"seccomp"`
	AppArmor bool `json:"appArmor"`
	SELinux  bool `json:"seLinux"`

	// Capabilities are those that this process can give away: both permitted
	// and in its bounding set. In the order of their numbers.
	Capabilities []string `json:"capabilities"`
	// OOMScoreAdjMin is the lowest oom_score_adj that this process may set:
	// −1000 with CAP_SYS_RESOURCE, else its own.
	OOMScoreAdjMin int `json:"oomScoreAdjMin"`
	// MaxOpenFiles is this process's hard limit of open files; without
	// CAP_SYS_RESOURCE no container can get more.
	MaxOpenFiles uint64 `json:"maxOpenFiles"`
}

// HasController tells whether a cgroup controller is usable.
func (f Facts) HasController(name string) bool { return slices.Contains(f.Controllers, name) }

// HasCapability tells whether this process can give cap (CAP_…) away.
func (f Facts) HasCapability(name string) bool { return slices.Contains(f.Capabilities, name) }

// UserNamespacePods tells whether pods can have a user namespace of their own:
// that needs idmapped root file systems too.
func (f Facts) UserNamespacePods() bool {
	return f.UserNamespaces && f.IDMapMounts && f.OverlayIDMap
}

// Probe returns the facts of this host. The first call probes; the answer
// stays for the life of the process.
func Probe() Facts { return probed() }

var probed = sync.OnceValue(probe)

func probe() Facts {
	var f Facts
	f.Kernel = kernel()
	f.Hostname, _ = os.Hostname() // empty where the kernel has none set
	f.probeCgroups("/sys/fs/cgroup", "/proc/self/cgroup")
	f.HugepageSizes = hugepageSizes("/sys/kernel/mm/hugepages")
	f.probeMounts()
	f.probeSecurity()
	f.probeProcess()
	return f
}

// read returns a small file's text without surrounding space, or "".
func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

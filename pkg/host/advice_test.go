package host

import (
	"strings"
	"testing"
)

// whole is a host that lacks nothing.
func whole() Facts {
	return Facts{
		Kernel: Kernel{Major: 6, Minor: 18}, CgroupV2: true, CgroupRoot: "/sys/fs/cgroup", Controllers: []string{"cpu", "cpuset", "hugetlb", "memory", "pids"},
		Swap: true, Overlay: true, RecursiveReadOnly: true, IDMapMounts: true, OverlayIDMap: true, UserNamespaces: true, Seccomp: true, PidfdExitInfo: true,
		Capabilities: []string{"CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"},
	}
}

func TestAdviceIsAboutWhatIsMissing(t *testing.T) {
	if all := whole().Advise(); len(all) != 0 {
		t.Errorf("a host that has all: %+v", all)
	}
	for name, c := range map[string]struct {
		change func(*Facts)
		what   string
		needed bool
	}{
		"overlay":      {func(f *Facts) { f.Overlay = false }, "overlay", true},
		"memory":       {func(f *Facts) { f.Controllers = []string{"cpu", "cpuset", "hugetlb", "pids"} }, "controller memory", true},
		"cpuset":       {func(f *Facts) { f.Controllers = []string{"cpu", "hugetlb", "memory", "pids"} }, "controller cpuset", false},
		"v1":           {func(f *Facts) { f.CgroupV2 = false }, "version 1", false},
		"seccomp":      {func(f *Facts) { f.Seccomp = false }, "seccomp", false},
		"old kernel":   {func(f *Facts) { f.Kernel = Kernel{Major: 6, Minor: 1} }, "EROFS", false},
		"forgetful":    {func(f *Facts) { f.PidfdExitInfo = false }, "forgets how a process ended", false},
		"capabilities": {func(f *Facts) { f.Capabilities = []string{"CAP_SYS_ADMIN"} }, "CAP_SYS_RESOURCE", false},
	} {
		f := whole()
		c.change(&f)
		all := f.Advise()
		if len(all) != 1 || !strings.Contains(all[0].What, c.what) || all[0].Needed != c.needed || all[0].Do == "" {
			t.Errorf("%s: %+v", name, all)
		}
	}
	var nothing Facts
	if all := nothing.Advise(); len(all) < 10 {
		t.Errorf("a host that has nothing: %+v", all)
	}
}

func TestSysctlsThatKeepPodsApart(t *testing.T) {
	values := map[string]string{"/proc/sys/net/ipv4/ip_forward": "0"}
	all := Sysctls(func(path string) string { return values[path] })
	if len(all) != 1 || !strings.Contains(all[0].What, "net.ipv4.ip_forward is 0") || !strings.Contains(all[0].Do, "net.ipv4.ip_forward=1") {
		t.Errorf("got %+v", all)
	}
	values["/proc/sys/net/ipv4/ip_forward"] = "1"
	if all := Sysctls(func(path string) string { return values[path] }); len(all) != 0 {
		t.Errorf("all is well: %+v", all)
	}
}

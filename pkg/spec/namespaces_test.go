package spec_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/spec"
)

func podOptions(o *cri.NamespaceOption) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: o}}}
}

func namespacesOf(t *testing.T, in spec.Input) map[specs.LinuxNamespaceType]string {
	t.Helper()
	out := map[specs.LinuxNamespaceType]string{}
	for _, n := range build(t, in).Linux.Namespaces {
		if _, twice := out[n.Type]; twice {
			t.Errorf("%s is there twice", n.Type)
		}
		out[n.Type] = n.Path
	}
	return out
}

func TestNamespacesByMode(t *testing.T) {
	const node, pod, own, target = cri.NamespaceMode_NODE, cri.NamespaceMode_POD, cri.NamespaceMode_CONTAINER, cri.NamespaceMode_TARGET
	pinned := map[specs.LinuxNamespaceType]string{"network": "/n", "ipc": "/i", "uts": "/u", "pid": "/p"}
	for _, c := range []struct {
		name           string
		pod, container *cri.NamespaceOption
		want           map[specs.LinuxNamespaceType]string
	}{
		{"CRI's defaults", nil, nil, map[specs.LinuxNamespaceType]string{"network": "/n", "ipc": "/i", "uts": "/u", "pid": "/p"}},
		{"kubelet's defaults", &cri.NamespaceOption{Pid: own}, &cri.NamespaceOption{Pid: own}, map[specs.LinuxNamespaceType]string{"network": "/n", "ipc": "/i", "uts": "/u", "pid": ""}},
		{"host network", &cri.NamespaceOption{Network: node, Pid: own}, nil, map[specs.LinuxNamespaceType]string{"ipc": "/i", "pid": ""}},
		{"all of the host's", &cri.NamespaceOption{Network: node, Pid: node, Ipc: node}, nil, map[specs.LinuxNamespaceType]string{}},
		{"a container cannot leave the pod's network", &cri.NamespaceOption{Pid: own}, &cri.NamespaceOption{Network: node, Pid: own}, map[specs.LinuxNamespaceType]string{"network": "/n", "ipc": "/i", "uts": "/u", "pid": ""}},
		{"target", &cri.NamespaceOption{Pid: own}, &cri.NamespaceOption{Pid: target, TargetId: "c0"}, map[specs.LinuxNamespaceType]string{"network": "/n", "ipc": "/i", "uts": "/u", "pid": "/t"}},
		{"container joins the pod's processes", &cri.NamespaceOption{Pid: own}, &cri.NamespaceOption{Pid: pod}, map[specs.LinuxNamespaceType]string{"network": "/n", "ipc": "/i", "uts": "/u", "pid": "/p"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := input()
			in.Pod = podOptions(c.pod)
			security(in).NamespaceOptions = c.container
			in.Namespaces, in.TargetPIDNS = pinned, "/t"
			c.want["mount"], c.want["cgroup"] = "", ""
			if d := cmp.Diff(c.want, namespacesOf(t, in)); d != "" {
				t.Error(d)
			}
		})
	}
	in := input()
	security(in).NamespaceOptions = &cri.NamespaceOption{Pid: target}
	refused(t, in, errs.Invalid)
	in = input()
	in.Host.CgroupV2 = false
	if _, ok := namespacesOf(t, in)[specs.CgroupNamespace]; ok {
		t.Error("a cgroup namespace with version 1")
	}
}

func TestUserNamespace(t *testing.T) {
	userns := func(mode cri.NamespaceMode, maps ...*cri.IDMapping) *cri.NamespaceOption {
		return &cri.NamespaceOption{UsernsOptions: &cri.UserNamespace{Mode: mode, Uids: maps, Gids: maps}}
	}
	good := &cri.IDMapping{HostId: 65536, Length: 65536}
	in := input()
	in.Pod = podOptions(userns(cri.NamespaceMode_POD, good))
	s := build(t, in)
	if len(s.Linux.UIDMappings) != 1 || s.Linux.UIDMappings[0] != (specs.LinuxIDMapping{HostID: 65536, Size: 65536}) {
		t.Errorf("mappings %v", s.Linux.UIDMappings)
	}
	in.Namespaces = map[specs.LinuxNamespaceType]string{"user": "/u"}
	if s := build(t, in); s.Linux.UIDMappings != nil {
		t.Error("a joined namespace has its mappings already")
	}
	in.Host.UserNamespaces = false
	refused(t, in, errs.Unsupported)
	for name, o := range map[string]*cri.NamespaceOption{
		"no mappings":    userns(cri.NamespaceMode_POD),
		"empty mapping":  userns(cri.NamespaceMode_POD, &cri.IDMapping{HostId: 1}),
		"overflow":       userns(cri.NamespaceMode_POD, &cri.IDMapping{HostId: 1<<32 - 1, Length: 2}),
		"one user twice": userns(cri.NamespaceMode_POD, good, &cri.IDMapping{HostId: 65536 + 65535, ContainerId: 65536, Length: 1}),
		"one for two":    userns(cri.NamespaceMode_POD, good, &cri.IDMapping{HostId: 200000, ContainerId: 65535, Length: 1}),
		"container":      userns(cri.NamespaceMode_CONTAINER, good),
		"node, mapped":   userns(cri.NamespaceMode_NODE, good),
	} {
		if _, _, _, err := spec.UserNamespace(podOptions(o)); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, on, err := spec.UserNamespace(podOptions(userns(cri.NamespaceMode_NODE))); on || err != nil {
		t.Errorf("node: %v, %v", on, err)
	}
}

func sysctls(o *cri.NamespaceOption, kv ...string) *cri.PodSandboxConfig {
	p := podOptions(o)
	p.Linux.Sysctls = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		p.Linux.Sysctls[kv[i]] = kv[i+1]
	}
	return p
}

func TestPodSysctls(t *testing.T) {
	defaults := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	got, err := spec.PodSysctls(sysctls(nil,
		"kernel.shm_rmid_forced", "1", "net/ipv4/conf/eth0.100/rp_filter", "2", "fs.mqueue.msg_max", "9",
		"net.ipv4.ip_unprivileged_port_start", "80"), defaults)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"kernel.shm_rmid_forced": "1", "net.ipv4.conf.eth0/100.rp_filter": "2", "fs.mqueue.msg_max": "9",
		"net.ipv4.ip_unprivileged_port_start": "80", "net.ipv4.ping_group_range": "0 2147483647",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	host := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}
	if got, err := spec.PodSysctls(sysctls(host), defaults); err != nil || len(got) != 0 {
		t.Errorf("host network: %v, %v", got, err)
	}
}

func TestPodSysctlsRefuses(t *testing.T) {
	network, ipc := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}, &cri.NamespaceOption{Ipc: cri.NamespaceMode_NODE}
	ownUsers := &cri.NamespaceOption{UsernsOptions: &cri.UserNamespace{Mode: cri.NamespaceMode_POD}}
	for _, c := range []struct {
		name string
		p    *cri.PodSandboxConfig
	}{
		{"of the host", sysctls(nil, "kernel.core_pattern", "|/x")},
		{"vm", sysctls(nil, "vm.overcommit_memory", "1")},
		{"hostname", sysctls(nil, "kernel.hostname", "x")},
		{"user without a namespace", sysctls(nil, "user.max_user_namespaces", "1")},
		{"user with a namespace", sysctls(ownUsers, "user.max_user_namespaces", "1")},
		{"two settings in a value", sysctls(nil, "kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/x")},
		{"two settings in a key", sysctls(nil, "kernel.shm_rmid_forced=1+kernel.core_pattern", "|/x")},
		{"climbing", sysctls(nil, "net/../kernel/core_pattern", "x")},
		{"climbing with dots", sysctls(nil, "net.ipv4...kernel", "x")},
		{"slashes within", sysctls(nil, "net.ipv4.//.x", "1")},
		{"slash at an end", sysctls(nil, "net./x", "1")},
		{"same twice", sysctls(nil, "net.ipv4.ip_forward", "1", "net/ipv4/ip_forward", "0")},
		{"host network", sysctls(network, "net.ipv4.ip_forward", "1")},
		{"host UTS", sysctls(network, "kernel.domainname", "x")},
		{"host IPC", sysctls(ipc, "kernel.shmmax", "1")},
		{"host IPC queues", sysctls(ipc, "fs.mqueue.msg_max", "1")},
		{"empty", sysctls(nil, "", "1")},
	} {
		if got, err := spec.PodSysctls(c.p, nil); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func FuzzPodSysctls(f *testing.F) {
	f.Add("net/ipv4/conf/eth0.100/rp_filter", "1")
	f.Add("net.ipv4.ip_forward", "1+kernel.core_pattern=x")
	f.Fuzz(func(t *testing.T, key, value string) {
		got, err := spec.PodSysctls(sysctls(nil, key, value), nil)
		if err != nil {
			return
		}
		for name, value := range got {
			file := strings.NewReplacer(".", "/", "/", ".").Replace(name)
			if !strings.HasPrefix(file, "net/") && !strings.HasPrefix(file, "kernel/") && !strings.HasPrefix(file, "fs/mqueue/") ||
				strings.Contains("/"+file+"/", "/../") || strings.Contains(value, "\n") {
				t.Errorf("%q became %q", key, file)
			}
		}
	})
}

func TestStopSignal(t *testing.T) {
	for _, c := range []struct {
		enum  cri.Signal
		image string
		want  int
	}{
		{0, "", 15},
		{0, "SIGQUIT", 3},
		{0, "int", 2},
		{0, "9", 9},
		{0, "RTMIN+3", 37},
		{0, "SIGRTMAX-1", 63},
		{0, "SIGRTMIN", 34},
		{0, "SIGCLD", 17},
		{cri.Signal_SIGNAL_SIGUSR1, "SIGQUIT", 10},
		{cri.Signal_SIGNAL_SIGRTMINPLUS15, "", 49},
		{cri.Signal_SIGNAL_SIGRTMAXMINUS14, "", 50},
		{cri.Signal_SIGNAL_SIGPOLL, "", 29},
		{0, "0", 0},
		{0, "65", 0},
		{0, "-9", 0},
		{0, "SIGNONE", 0},
		{0, "RTMIN+99", 0},
		{0, "RTMIN-1", 0},
		{0, "RTMAX+1", 0},
		{0, "RTMIN+-1", 0},
	} {
		got, err := spec.StopSignal(&cri.ContainerConfig{StopSignal: c.enum}, ispec.ImageConfig{StopSignal: c.image})
		if got != c.want || (c.want == 0) != errors.Is(err, errs.Invalid) {
			t.Errorf("%v, %q: got %d, %v", c.enum, c.image, got, err)
		}
	}
	for n := range cri.Signal_name {
		if got, err := spec.StopSignal(&cri.ContainerConfig{StopSignal: cri.Signal(n)}, ispec.ImageConfig{}); err != nil || got < 1 || got > 64 {
			t.Errorf("%v: %d, %v", cri.Signal(n), got, err)
		}
	}
}

func FuzzStopSignal(f *testing.F) {
	f.Add("SIGRTMIN+3")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := spec.StopSignal(nil, ispec.ImageConfig{StopSignal: text}); err == nil && (n < 1 || n > 64) {
			t.Errorf("%q: %d", text, n)
		}
	})
}

func TestResolvConf(t *testing.T) {
	if spec.ResolvConf(nil) != nil {
		t.Error("nothing said, something written")
	}
	if got := spec.ResolvConf(&cri.DNSConfig{}); got == nil || len(got) != 0 {
		t.Errorf("of an empty configuration: %q", got)
	}
	got := spec.ResolvConf(&cri.DNSConfig{
		Servers: []string{"10.0.0.10", "1.1.1.1\nnameserver 6.6.6.6"}, Searches: []string{"a.local", "b.local"}, Options: []string{"ndots:5"},
	})
	if d := cmp.Diff("search a.local b.local\nnameserver 10.0.0.10\noptions ndots:5\n", string(got)); d != "" {
		t.Error(d)
	}
}

func TestHosts(t *testing.T) {
	got := string(spec.Hosts("pod", []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}, "alias", "bad\n6.6.6.6 x"))
	if !strings.HasSuffix(got, "\n10.0.0.2\tpod alias\nfd00::2\tpod alias\n") || !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n") {
		t.Error(got)
	}
}

package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSysctlsAreThePodsOnly(t *testing.T) {
	p := runPod(t, own, func(c *cri.PodSandboxConfig) {
		c.Linux.Sysctls = map[string]string{"net.core.somaxconn": "321", "kernel.shm_rmid_forced": "1", "net/ipv4/tcp_syncookies": "0", "fs.mqueue.msg_max": "12"}
	})
	out := p.start(sh("cd /proc/sys; cat net/core/somaxconn kernel/shm_rmid_forced net/ipv4/tcp_syncookies fs/mqueue/msg_max net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range")).output()
	if strings.Join(strings.Fields(out), " ") != "321 1 0 12 0 0 2147483647" {
		t.Errorf("got %q", out)
	}
	if out := runPod(t).start(sh("cat /proc/sys/kernel/shm_rmid_forced")).output(); out != "0" {
		t.Errorf("another pod has %s", out)
	}
}

func TestSysctlsThatReachTheHostAreRefused(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		network    cri.NamespaceMode
		key, value string
	}{
		"no namespace":           {cri.NamespaceMode_POD, "kernel.core_pattern", "|/bin/evil"},
		"no namespace of memory": {cri.NamespaceMode_POD, "vm.swappiness", "1"},
		"two in the value":       {cri.NamespaceMode_POD, "kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/bin/evil"},
		"two with a plus":        {cri.NamespaceMode_POD, "kernel.shm_rmid_forced+kernel.core_pattern", "|/bin/evil"},
		"equals in the name":     {cri.NamespaceMode_POD, "net.core.somaxconn=1", "1"},
		"up the tree":            {cri.NamespaceMode_POD, "net.../kernel/core_pattern", "|/bin/evil"},
		"up with slashes":        {cri.NamespaceMode_POD, "net/../kernel/core_pattern", "|/bin/evil"},
		"the host's network":     {cri.NamespaceMode_NODE, "net.core.somaxconn", "1"},
		"hostname":               {cri.NamespaceMode_POD, "kernel.hostname", "x"},
		"empty":                  {cri.NamespaceMode_POD, "", "x"},
	} {
		config := podConfig(t)
		config.Linux.SecurityContext.NamespaceOptions.Network = c.network
		config.Linux.Sysctls = map[string]string{c.key: c.value}
		r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		if code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	after, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("core_pattern is %q now, %v", after, err)
	}
}

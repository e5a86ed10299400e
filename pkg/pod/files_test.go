package pod_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/test/testutil"
)

// stubVariable marks the test process in whose mounts the node asks a server of
// its own.
const stubVariable = "BERTH_TEST_POD_STUB_RESOLVER"

func TestPodsAskServersThatTheyCanReach(t *testing.T) {
	testutil.Root(t)
	if os.Getenv(stubVariable) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), stubVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const stub, reachable = "nameserver 127.0.0.1\n", "nameserver 192.0.2.1\n"
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(stub+reachable), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	for mode, want := range map[cri.NamespaceMode]string{cri.NamespaceMode_POD: reachable, cri.NamespaceMode_NODE: stub + reachable} {
		config := testConfig(mode.String())
		config.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: mode}}
		got, err := os.ReadFile(filepath.Join(n.state, "pods", n.run(config), "resolv.conf"))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", mode, got, err)
		}
	}
}

func TestWhatCouldBeAnotherLineOrPathIsRefused(t *testing.T) {
	n := newNode(t)
	for name, change := range map[string]func(*cri.PodSandboxConfig){
		"log directory": func(c *cri.PodSandboxConfig) { c.LogDirectory = "/tmp/a\x00b" },
		"name server": func(c *cri.PodSandboxConfig) {
			c.DnsConfig = &cri.DNSConfig{Servers: []string{"10.0.0.1\nsearch evil"}}
		},
		"search domain": func(c *cri.PodSandboxConfig) { c.DnsConfig = &cri.DNSConfig{Searches: []string{"a b"}} },
		"option":        func(c *cri.PodSandboxConfig) { c.DnsConfig = &cri.DNSConfig{Options: []string{"a\tb"}} },
	} {
		c := testConfig("p")
		change(c)
		if _, err := n.Run(t.Context(), c, ""); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

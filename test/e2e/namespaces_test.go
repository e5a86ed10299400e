package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pidMode gives pod and containers a mode of process namespaces.
func pidMode(m cri.NamespaceMode) func(*cri.PodSandboxConfig) {
	return func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Pid = m }
}

func ipcMode(m cri.NamespaceMode) func(*cri.PodSandboxConfig) {
	return func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.NamespaceOptions.Ipc = m }
}

// joined is the container's namespace of a kind.
func (c *ctr) joined(kind string) string {
	c.t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.pid(), kind))
	if err != nil {
		c.t.Fatal(err)
	}
	return ns
}

func TestProcessesAreSharedAsAsked(t *testing.T) {
	p := runPod(t)
	a, b := p.start(sleeper()), p.start(sleeper())
	if a.joined("pid") == b.joined("pid") || a.joined("pid") == namespace(t, "pid") {
		t.Error("containers share processes unasked")
	}
	if out := a.sh("echo $$; cat /proc/1/comm"); !strings.HasSuffix(out, "sleep") {
		t.Errorf("its own process 1: %q", out)
	}
	q := runPod(t, pidMode(cri.NamespaceMode_POD))
	a, b = q.start(sleeper()), q.start(sleeper())
	if a.joined("pid") != b.joined("pid") || a.joined("pid") == namespace(t, "pid") {
		t.Error("the pod's containers do not share its processes")
	}
	if out := a.sh("cat /proc/1/comm; pidof sleep | wc -w"); !strings.HasSuffix(out, "\n2") || strings.HasPrefix(out, "sleep") {
		t.Errorf("shared processes: %q", out)
	}
	h := runPod(t, pidMode(cri.NamespaceMode_NODE))
	if c := h.start(sleeper()); c.joined("pid") != namespace(t, "pid") {
		t.Error("the host's processes are not seen")
	}
}

func TestOrphansOfASharedNamespaceAreReaped(t *testing.T) {
	p := runPod(t, pidMode(cri.NamespaceMode_POD))
	c := p.start(sleeper())
	c.sh("(sleep 0.01 &) ; (sleep 0.02 &)")
	eventually(t, func() error {
		if out := c.sh("grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null; pidof sleep | wc -w"); out != "1" {
			return fmt.Errorf("left: %q", out)
		}
		return nil
	})
	c.stop(0)
	d := p.start(sleeper())
	eventually(t, func() error { return wantText(d.sh("pidof sleep | wc -w"), "1") }) // its own, which is called so in a moment
}

// daemonizer leaves a process that hears of nothing, and prints its number.
const daemonizer = "(trap '' HUP TERM; exec setsid sleep 100000 >/dev/null 2>&1) & echo $!; "

func TestAPoliteStopLeavesNoProcessInASharedNamespace(t *testing.T) {
	p := runPod(t, pidMode(cri.NamespaceMode_POD))
	other := p.start(sleeper())
	c := p.start(sh(daemonizer + "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done"))
	eventually(t, func() error {
		if out := c.written(); !strings.HasSuffix(out, "ready") {
			return fmt.Errorf("got %q", out)
		}
		return nil
	})
	c.stop(20)
	if s := c.status(); s.ExitCode != 3 {
		t.Errorf("the stop was not polite: %v", s)
	}
	eventually(t, func() error { return wantText(other.sh("pidof sleep | wc -w"), "1") })
}

func TestAnEndLeavesNoProcessOnTheHost(t *testing.T) {
	parent, _ := kubepods(t, "pod2")
	for name, change := range map[string]func(*cri.PodSandboxConfig){
		"cgroup of Berth":   func(*cri.PodSandboxConfig) {},
		"cgroup of kubelet": func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = parent },
	} {
		t.Run(name, func(t *testing.T) {
			p := runPod(t, pidMode(cri.NamespaceMode_NODE), change)
			c := p.start(sh(daemonizer + "exit 4"))
			pid := c.output()
			if s := c.status(); s.ExitCode != 4 {
				t.Errorf("status %v", s)
			}
			eventually(t, func() error {
				if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && len(line) > 0 {
					return fmt.Errorf("process %s is left: %q", pid, line)
				}
				return nil
			})
			p.stop()
		})
	}
}

func TestADebuggerSeesItsTarget(t *testing.T) {
	p, other := runPod(t), runPod(t)
	target := p.start(sleeper())
	debugger := sh("cat /proc/1/comm; echo $$")
	options := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_TARGET, TargetId: target.id}
	security(debugger).NamespaceOptions = options
	if out := p.start(debugger).output(); !strings.HasPrefix(out, "sleep\n") || out == "sleep\n1" {
		t.Errorf("got %q", out)
	}
	if s := target.status(); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the target: %v", s)
	}
	for name, c := range map[string]struct {
		pod    *pod
		target string
		want   codes.Code
	}{
		"another pod's": {other, target.id, codes.InvalidArgument},
		"unknown":       {p, "0123456789", codes.NotFound},
		"not running":   {p, p.create(sleeper()).id, codes.FailedPrecondition},
	} {
		config := sh("true")
		security(config).NamespaceOptions = &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_TARGET, TargetId: c.target}
		if err := c.pod.createError(config); code(err) != c.want {
			t.Errorf("%s target: %v", name, err)
		}
	}
}

func TestMemoryIsSharedWithinThePod(t *testing.T) {
	p, q := runPod(t, own), runPod(t, own)
	a, b, c := p.start(sleeper()), p.start(sleeper()), q.start(sleeper())
	a.sh("echo shared > /dev/shm/x")
	if out := b.sh("cat /dev/shm/x; df -k /dev/shm | tail -n 1 | awk '{print $2}'"); out != "shared\n65536" {
		t.Errorf("in the pod: %q", out)
	}
	if out := c.sh("ls /dev/shm"); out != "" {
		t.Errorf("in another pod: %q", out)
	}
	if a.joined("ipc") != b.joined("ipc") || a.joined("ipc") == c.joined("ipc") || a.joined("ipc") == namespace(t, "ipc") {
		t.Error("IPC namespaces are not the pods'")
	}
	alone := runPod(t, ipcMode(cri.NamespaceMode_CONTAINER))
	a, b = alone.start(sleeper()), alone.start(sleeper())
	if a.joined("ipc") == b.joined("ipc") || a.joined("ipc") == namespace(t, "ipc") || b.joined("ipc") == namespace(t, "ipc") {
		t.Error("containers do not have IPC namespaces of their own")
	}
	host := runPod(t, ipcMode(cri.NamespaceMode_NODE)).start(sleeper())
	if host.joined("ipc") != namespace(t, "ipc") {
		t.Error("the host's IPC namespace is not joined")
	}
	marker := filepath.Join("/dev/shm", "e2e-"+p.id[:12])
	host.sh("touch " + marker)
	if err := os.Remove(marker); err != nil {
		t.Errorf("the host's shared memory: %v", err)
	}
}

func TestContainersShareThePodsNetworkAndName(t *testing.T) {
	p := runPod(t, own)
	a, b := p.start(sleeper()), p.start(sleeper())
	for _, kind := range []string{"net", "uts"} {
		if a.joined(kind) != b.joined(kind) || a.joined(kind) == namespace(t, kind) {
			t.Errorf("%s: %s and %s, the host has %s", kind, a.joined(kind), b.joined(kind), namespace(t, kind))
		}
	}
	if a.joined("mnt") == b.joined("mnt") {
		t.Error("containers share mounts")
	}
}

func TestAPodWithoutANetworkHasLoopbackAlone(t *testing.T) {
	p := runPod(t, func(c *cri.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_CONTAINER
	})
	if out := p.start(sh("ls /sys/class/net; ip -o addr show lo")).output(); !strings.HasPrefix(out, "lo\n") || !strings.Contains(out, "127.0.0.1/8") {
		t.Errorf("got %q", out)
	}
}

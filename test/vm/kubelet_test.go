package vm_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth/test/vm"
)

// startKubelet installs Berth and has kubelet run pods from files, without an API
// server. Its configuration is contrib's, and what a node would add.
const startKubelet = `
/tools/contrib/install.sh install && systemctl enable --now berth-runtime berthd || exit 1` + await + `
berth load -i /tools/busybox.tar && mkdir -p /etc/cni/net.d /etc/kubelet.d /etc/kubernetes/manifests || exit 1
cp /tools/contrib/kubelet/10-bridge.conflist /etc/cni/net.d
cat > /etc/kubelet.d/10-node.conf <<'EOF'
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
fileCheckFrequency: 2s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 10255
memoryReservationPolicy: TieredReservation
memoryThrottlingFactor: 0.9
evictionHard: {imagefs.available: "0%", nodefs.available: "0%"}
featureGates: {PodAndContainerStatsFromCRI: true, EventedPLEG: true, MemoryQoS: true, CRIListStreaming: true}
EOF
cat > /etc/kubernetes/manifests/web.yaml <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  terminationGracePeriodSeconds: 5
  resources: {limits: {memory: 128Mi}}
  containers:
  - name: main
    image: vm.local/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, "echo hello > /index.html; httpd -p 8080 -h /; trap 'exit 0' TERM; while :; do echo tick; sleep 1 & wait $!; done"]
    resources: {limits: {cpu: 200m, memory: 64Mi}, requests: {cpu: 100m, memory: 32Mi}}
    lifecycle: {postStart: {exec: {command: [touch, /begun]}}}
    startupProbe: {exec: {command: [test, -e, /begun]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 60}
    readinessProbe: {exec: {command: [test, -e, /begun]}, periodSeconds: 1, timeoutSeconds: 10}
    livenessProbe: {httpGet: {port: 8080}, periodSeconds: 2, timeoutSeconds: 10}
EOF
cat > /etc/kubernetes/manifests/users.yaml <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: users, namespace: default}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: vm.local/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, "cat /proc/self/uid_map; sleep 1d"]
EOF
systemd-run --quiet --unit kubelet /tools/kubelet --config /tools/contrib/kubelet/config.yaml --config-dir /etc/kubelet.d --hostname-override vm -v 4
`

// node is a machine with a kubelet.
type node struct {
	t *testing.T
	m *vm.Machine
}

// TestARealKubeletRunsPods has Kubernetes' own kubelet run pods on Berth: with systemd's
// cgroups of version 2, and all statistics and events from CRI.
func TestARealKubeletRunsPods(t *testing.T) {
	bin := built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // the first time builds kubelet
	defer cancel()
	dir, err := filepath.Abs(*cache)
	must(t, err)
	tools := version2Tools(t, bin)
	tools["kubelet"], err = vm.Kubelet(ctx, dir)
	must(t, err)
	n := &node{t, boot(ctx, t, vm.Debian(), tools, vm.Options{Systemd: true, Memory: 2048})}
	n.sh(startKubelet)
	web := n.await("web", func(p kubeletPod) bool { return p.ready() })
	n.await("users", func(p kubeletPod) bool { return p.ready() })
	for _, step := range []struct {
		name string
		do   func(*node, kubeletPod)
	}{
		{"limits", (*node).limits},
		{"users", (*node).users},
		{"statistics", (*node).statistics},
		{"metrics", (*node).metrics},
		{"a probe that fails", (*node).probes},
		{"an end", (*node).restarts},
		{"restarts of the daemons", (*node).outlives},
		{"removal", (*node).removal},
	} {
		t.Run(step.name, func(t *testing.T) { step.do(&node{t, n.m}, web) })
	}
	if out := n.sh(`journalctl --no-pager -u kubelet | grep -e 'code = Unimplemented' -e 'unknown method' -e 'nil PodSandboxStatus' | head -n 5`); out != "" {
		t.Errorf("kubelet complains:\n%s", out)
	}
}

func (n *node) sh(script string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Minute)
	defer cancel()
	out, err := n.m.Run(ctx, script)
	if err != nil {
		n.t.Fatalf("%v\n%s", err, n.journal())
	}
	return strings.TrimSpace(out)
}

func (n *node) journal() string {
	out, err := n.m.Run(n.t.Context(), "journalctl --no-pager -n 40 -u berthd; journalctl --no-pager -u kubelet | grep -E ' [EWF][0-9]{4} ' | tail -n 60")
	return fmt.Sprint(out, err)
}

// get asks kubelet.
func (n *node) get(path string) string {
	n.t.Helper()
	return n.sh("busybox wget -T 60 -qO- http://127.0.0.1:10255" + path)
}

// kubeletPod is what kubelet says of a pod.
type kubeletPod struct {
	Metadata struct {
		Name, UID   string
		Annotations map[string]string
	}
	Status struct {
		Phase, PodIP string
		Conditions   []struct{ Type, Status string }
		Containers   []struct {
			ContainerID  string
			RestartCount int
		} `json:"containerStatuses"`
	}
}

func (p kubeletPod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

func (p kubeletPod) container() string {
	if len(p.Status.Containers) == 0 {
		return ""
	}
	return strings.TrimPrefix(p.Status.Containers[0].ContainerID, "berth://")
}

func (p kubeletPod) restarts() int {
	if len(p.Status.Containers) == 0 {
		return 0
	}
	return p.Status.Containers[0].RestartCount
}

// slice is the pod's cgroup.
func (p kubeletPod) slice(class string) string {
	return "/sys/fs/cgroup/kubepods.slice/kubepods-" + class + ".slice/kubepods-" + class + "-pod" + strings.ReplaceAll(p.Metadata.UID, "-", "_") + ".slice"
}

// pods are those that kubelet shows.
func (n *node) pods() map[string]kubeletPod {
	n.t.Helper()
	var list struct{ Items []kubeletPod }
	out := n.sh("busybox wget -T 60 -qO- http://127.0.0.1:10255/pods || true") // it may be on its way up
	all := map[string]kubeletPod{}
	if json.Unmarshal([]byte(out), &list) == nil {
		for _, p := range list.Items {
			all[strings.TrimSuffix(p.Metadata.Name, "-vm")] = p
		}
	}
	return all
}

// await waits until kubelet says what is wanted of a pod.
func (n *node) await(name string, wanted func(kubeletPod) bool) kubeletPod {
	n.t.Helper()
	var p kubeletPod
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); <-time.After(time.Second) {
		if p = n.pods()[name]; wanted(p) {
			return p
		}
	}
	n.t.Fatalf("pod %s: %+v\n%s", name, p, n.journal())
	return p
}

// limits wants those of containers and of the pod, and MemoryQoS' of version 2.
func (n *node) limits(web kubeletPod) {
	scope := web.slice("burstable") + "/berth-" + web.container() + ".scope"
	for file, want := range map[string]string{
		scope + "/cpu.max": "20000 100000", scope + "/memory.max": "67108864", scope + "/memory.low": "33554432", scope + "/memory.high": "63750144",
		web.slice("burstable") + "/memory.max": "134217728",
	} {
		if got := n.sh("cat " + file); got != want {
			n.t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

// users wants a pod without the host's users to have others.
func (n *node) users(kubeletPod) {
	out := strings.Fields(n.sh("cat /var/log/pods/default_users-vm_*/main/0.log"))
	if len(out) < 6 || out[3] != "0" || out[4] == "0" || out[5] != "65536" {
		n.t.Errorf("users are mapped %q", out)
	}
}

// usage is the part of kubelet's summary that containers and pods have alike.
type usage struct {
	CPU    struct{ UsageNanoCores, UsageCoreNanoSeconds uint64 }
	Memory struct{ WorkingSetBytes, UsageBytes, RssBytes uint64 }
}

// figures wants what look misses to come: some are measured now and then.
func (n *node) figures(look func() (missing []string)) {
	n.t.Helper()
	var missing []string
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); <-time.After(time.Second) {
		if missing = look(); len(missing) == 0 {
			return
		}
	}
	n.t.Errorf("missing or 0: %q", missing)
}

func (n *node) statistics(kubeletPod) {
	n.figures(func() (missing []string) {
		var summary struct {
			Pods []struct {
				PodRef struct{ Name string }
				usage
				Network      struct{ RxBytes, TxBytes uint64 }
				ProcessStats struct {
					Count uint64 `json:"process_count"`
				} `json:"process_stats"`
				Containers []struct {
					usage
					Rootfs struct{ UsedBytes, InodesUsed uint64 }
					Logs   struct{ UsedBytes uint64 }
				}
			}
		}
		must(n.t, json.Unmarshal([]byte(n.get("/stats/summary")), &summary))
		if len(summary.Pods) != 2 {
			return []string{"pods"}
		}
		for _, p := range summary.Pods {
			if len(p.Containers) != 1 {
				return []string{p.PodRef.Name}
			}
			c := p.Containers[0]
			for what, figure := range map[string]uint64{
				"CPU of the pod": p.CPU.UsageCoreNanoSeconds, "memory of the pod": p.Memory.WorkingSetBytes, "processes": p.ProcessStats.Count,
				"bytes received": p.Network.RxBytes, "CPU": c.CPU.UsageCoreNanoSeconds, "working set": c.Memory.WorkingSetBytes,
				"memory": c.Memory.UsageBytes, "RSS": c.Memory.RssBytes, "root file system": c.Rootfs.UsedBytes, "inodes": c.Rootfs.InodesUsed,
				"log": c.Logs.UsedBytes,
			} {
				if figure == 0 {
					missing = append(missing, p.PodRef.Name+": "+what)
				}
			}
			if strings.HasPrefix(p.PodRef.Name, "web") && (c.CPU.UsageNanoCores == 0 || p.CPU.UsageNanoCores == 0) {
				missing = append(missing, "rate")
			}
		}
		return missing
	})
}

// metrics wants those of cAdvisor, which here are CRI's, and that events come.
func (n *node) metrics(kubeletPod) {
	n.figures(func() (missing []string) {
		out := n.get("/metrics/cadvisor")
		for _, name := range []string{
			"container_cpu_usage_seconds_total", "container_cpu_user_seconds_total", "container_cpu_system_seconds_total", "container_cpu_cfs_periods_total",
			"container_memory_working_set_bytes", "container_memory_rss", "container_memory_usage_bytes", "container_memory_cache", "container_memory_failures_total",
			"container_fs_usage_bytes", "container_fs_writes_total", "container_processes", "container_threads", "container_start_time_seconds",
			"container_spec_memory_limit_bytes", "container_spec_cpu_quota", "container_pressure_cpu_waiting_seconds_total", "container_oom_events_total",
		} {
			if !regexp.MustCompile(`(?m)^` + name + `\{.*container="main".*pod="web-vm".*\} `).MatchString(out) {
				missing = append(missing, name)
			}
		}
		if !regexp.MustCompile(`(?m)^container_network_receive_bytes_total\{.*interface="eth0".*pod="web-vm".*\} [1-9]`).MatchString(out) {
			missing = append(missing, "container_network_receive_bytes_total")
		}
		return missing
	})
	if out := n.get("/metrics"); !regexp.MustCompile(`(?m)^kubelet_evented_pleg_connection_success_count 1$`).MatchString(out) ||
		regexp.MustCompile(`(?m)^kubelet_evented_pleg_connection_error_count [1-9]`).MatchString(out) {
		n.t.Error("the stream of events is not there, or has ended")
	}
}

func (n *node) probes(web kubeletPod) {
	n.sh("berth exec " + web.container() + " rm /begun")
	n.await("web", func(p kubeletPod) bool { return !p.ready() })
	n.sh("berth exec " + web.container() + " touch /begun")
	n.await("web", func(p kubeletPod) bool { return p.ready() && p.restarts() == 0 })
}

// restarts ends a container, of which kubelet hears by an event.
func (n *node) restarts(web kubeletPod) {
	n.sh("berth exec " + web.container() + " kill 1; true") // it ends with its container
	n.await("web", func(p kubeletPod) bool { return p.ready() && p.restarts() == 1 })
	if out := n.sh("journalctl --no-pager -u kubelet | grep -c 'requested pod relist after container termination.*" + web.container() + "' || true"); out == "0" {
		n.t.Error("the end was no event")
	}
}

func (n *node) outlives(kubeletPod) {
	before := n.pods()["web"]
	n.sh("systemctl restart berthd && systemctl reload berth-runtime && systemctl restart kubelet || exit 1" + await)
	// The first look of a new kubelet is at what it knows of before.
	after := n.await("web", func(p kubeletPod) bool { return p.ready() && p.container() != "" })
	if after.container() != before.container() || after.restarts() != before.restarts() {
		n.t.Errorf("container %s with %d restarts is %s with %d", before.container(), before.restarts(), after.container(), after.restarts())
	}
}

func (n *node) removal(kubeletPod) {
	n.sh("rm /etc/kubernetes/manifests/*")
	const look = "berth pods -q; find /sys/fs/cgroup/kubepods.slice -name '*pod*-pod*'; ls /var/lib/kubelet/pods"
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); <-time.After(time.Second) {
		if n.sh(look) == "" {
			n.sh("systemctl stop kubelet; berth check")
			return
		}
	}
	n.t.Errorf("left over:\n%s\n%s", n.sh(look), n.journal())
}

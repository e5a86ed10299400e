package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runLabel marks all that one run of berth-bench made.
const runLabel = "berth.run/bench"

// driver makes pods over CRI in the way of kubelet, and remembers what has to
// be cleaned up. Its methods may be called concurrently.
type driver struct {
	options
	cri.RuntimeServiceClient
	Images cri.ImageServiceClient
	// Runtime is the runtime's name and version.
	Runtime string

	conn *grpc.ClientConn
	run  string
	logs string

	mu      sync.Mutex
	parents []string
}

// pod is a sandbox with one container.
type pod struct {
	ID        string
	Container string
	Config    *cri.PodSandboxConfig
	// LogPath is the container's log file.
	LogPath string
}

// dial connects to the runtime of o and asks for its version.
func dial(o options) (*driver, error) {
	if o.Network != networkHost && o.Network != networkPod {
		return nil, fmt.Errorf("--network is host or pod, not %q", o.Network)
	}
	if !strings.Contains(o.Endpoint, "://") {
		o.Endpoint = "unix://" + o.Endpoint
	}
	conn, err := grpc.NewClient(o.Endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", o.Endpoint, err)
	}
	d := &driver{
		options: o, RuntimeServiceClient: cri.NewRuntimeServiceClient(conn), Images: cri.NewImageServiceClient(conn),
		conn: conn, run: randomHex(6),
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	v, err := d.Version(ctx, &cri.VersionRequest{})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask %s for its version: %w", o.Endpoint, err)
	}
	d.Runtime = v.GetRuntimeName() + " " + v.GetRuntimeVersion()
	if d.logs, err = os.MkdirTemp(o.LogDir, "berth-bench-"); err != nil {
		conn.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the connection.
func (d *driver) Close() { d.conn.Close() }

// NewPod describes a pod that no other call returned.
func (d *driver) NewPod() *pod {
	uid := randomHex(16)
	c := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "bench-" + uid[:8], Uid: uid, Namespace: "bench"},
		LogDirectory: filepath.Join(d.logs, uid),
		Labels:       d.labels(),
		DnsConfig:    &cri.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"bench.svc.cluster.local", "cluster.local"}},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: d.namespaces(),
			Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
		}},
	}
	if d.Network == networkPod {
		c.Hostname = c.Metadata.Name
	}
	if d.CgroupParent != "" {
		c.Linux.CgroupParent = filepath.Join(d.CgroupParent, "pod"+uid)
		d.mu.Lock()
		d.parents = append(d.parents, c.Linux.CgroupParent)
		d.mu.Unlock()
	}
	return &pod{Config: c, LogPath: filepath.Join(c.LogDirectory, "main/0.log")}
}

// labels are the user's and the run's.
func (d *driver) labels() map[string]string {
	l := map[string]string{runLabel: d.run}
	for k, v := range d.Labels {
		l[k] = v
	}
	return l
}

func (d *driver) namespaces() *cri.NamespaceOption {
	n := &cri.NamespaceOption{Network: cri.NamespaceMode_POD, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
	if d.Network == networkHost {
		n.Network = cri.NamespaceMode_NODE
	}
	return n
}

// ContainerConfig describes a pod's one container as kubelet does, but for the
// mounts of kubelet's own files (hosts, termination log, service account).
func (d *driver) ContainerConfig(command ...string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main"},
		Image:    &cri.ImageSpec{Image: d.Image},
		Command:  command,
		LogPath:  "main/0.log",
		Labels:   d.labels(),
		Envs:     []*cri.KeyValue{{Key: "KUBERNETES_SERVICE_HOST", Value: []byte("10.96.0.1")}, {Key: "KUBERNETES_SERVICE_PORT", Value: []byte("443")}},
		Linux: &cri.LinuxContainerConfig{
			Resources: &cri.LinuxContainerResources{CpuShares: 102, OomScoreAdj: 1000},
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: d.namespaces(),
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
				MaskedPaths:      []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
				ReadonlyPaths:    []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			},
		},
	}
}

// CleanUp removes every pod of this run, its images' logs and its cgroups. It
// works after the run's context has ended.
func (d *driver) CleanUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	list, err := d.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{
		Filter: &cri.PodSandboxFilter{LabelSelector: map[string]string{runLabel: d.run}},
	})
	errList := []error{err}
	for _, p := range list.GetItems() {
		if _, err := d.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.GetId()}); err != nil {
			errList = append(errList, err)
			continue
		}
		_, err := d.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.GetId()})
		errList = append(errList, err)
	}
	d.removeCgroups()
	errList = append(errList, os.RemoveAll(d.logs))
	if err := errors.Join(errList...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// removeCgroups removes the pods' cgroups in every hierarchy, as kubelet does.
// They are empty by now; what cannot be removed is the runtime's to explain.
func (d *driver) removeCgroups() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, parent := range d.parents {
		for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			dirs, _ := filepath.Glob(filepath.Join(root, parent)) // the pattern is well formed
			for _, dir := range dirs {
				_ = os.Remove(dir) // what stays is visible there
			}
		}
	}
	d.parents = nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its documentation
	return hex.EncodeToString(b)
}

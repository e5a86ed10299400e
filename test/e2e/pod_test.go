package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	testnode "github.com/berth-run/berth/test/node"
	"github.com/berth-run/berth/test/testutil"
)

// pod is a sandbox of one test, removed at its end.
type pod struct {
	t      *testing.T
	id     string
	config *cri.PodSandboxConfig
}

var podNumber atomic.Int64

// podConfig is that of a pod on the host's network, which is quick to make.
func podConfig(t *testing.T) *cri.PodSandboxConfig {
	t.Helper()
	n := podNumber.Add(1)
	name := fmt.Sprintf("pod%d", n)
	logs := filepath.Join(berth.Logs(), name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "e2e", Uid: fmt.Sprintf("uid-%d", n)},
		LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER},
		}},
	}
}

// own puts the pod on a network of its own.
func own(c *cri.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_POD
}

func runPod(t *testing.T, change ...func(*cri.PodSandboxConfig)) *pod {
	t.Helper()
	c := podConfig(t)
	for _, f := range change {
		f(c)
	}
	r, err := berth.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t, r.PodSandboxId, c}
	t.Cleanup(p.remove)
	return p
}

func (p *pod) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := berth.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Error(err)
	}
	if _, err := berth.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Error(err)
	}
}

func (p *pod) stop() {
	p.t.Helper()
	if _, err := berth.Runtime.StopPodSandbox(p.t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) status() *cri.PodSandboxStatus {
	p.t.Helper()
	r, err := berth.Runtime.PodSandboxStatus(p.t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
	if err != nil {
		p.t.Fatal(err)
	}
	return r.Status
}

// ctr is a container of one test.
type ctr struct {
	t   *testing.T
	pod *pod
	id  string
}

var containerNumber atomic.Int64

// sh is a container that runs a script of busybox' shell.
func sh(script string) *cri.ContainerConfig {
	n := containerNumber.Add(1)
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: fmt.Sprintf("c%d", n)},
		Image:    &cri.ImageSpec{Image: busybox, UserSpecifiedImage: busybox},
		Command:  []string{"/bin/sh", "-c", script},
		LogPath:  fmt.Sprintf("c%d.log", n),
		Linux:    &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{}, Resources: &cri.LinuxContainerResources{}},
	}
}

func (p *pod) request(c *cri.ContainerConfig) *cri.CreateContainerRequest {
	return &cri.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config}
}

// createError is the error of making a container that cannot be made; starting
// counts too.
func (p *pod) createError(c *cri.ContainerConfig) error {
	p.t.Helper()
	inherit(c, p.config)
	r, err := berth.Runtime.CreateContainer(p.t.Context(), p.request(c))
	if err == nil {
		_, err = berth.Runtime.StartContainer(p.t.Context(), &cri.StartContainerRequest{ContainerId: r.ContainerId})
	}
	return err
}

// inherit gives a container the namespaces of its pod, as kubelet does.
func inherit(c *cri.ContainerConfig, p *cri.PodSandboxConfig) {
	if sc := c.GetLinux().GetSecurityContext(); sc != nil && sc.NamespaceOptions == nil {
		sc.NamespaceOptions = p.GetLinux().GetSecurityContext().GetNamespaceOptions()
	}
}

func (p *pod) create(c *cri.ContainerConfig) *ctr {
	p.t.Helper()
	inherit(c, p.config)
	r, err := berth.Runtime.CreateContainer(p.t.Context(), p.request(c))
	if err != nil {
		p.t.Fatal(err)
	}
	return &ctr{p.t, p, r.ContainerId}
}

func (p *pod) start(c *cri.ContainerConfig) *ctr {
	p.t.Helper()
	k := p.create(c)
	k.start()
	return k
}

func (c *ctr) start() {
	c.t.Helper()
	if _, err := berth.Runtime.StartContainer(c.t.Context(), &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ctr) stop(grace int64) {
	c.t.Helper()
	if _, err := berth.Runtime.StopContainer(c.t.Context(), &cri.StopContainerRequest{ContainerId: c.id, Timeout: grace}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ctr) status() *cri.ContainerStatus {
	c.t.Helper()
	r, err := berth.Runtime.ContainerStatus(c.t.Context(), &cri.ContainerStatusRequest{ContainerId: c.id})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Status
}

// await waits for the container's end.
func (c *ctr) await() *cri.ContainerStatus {
	c.t.Helper()
	return awaitStatus(c, func(s *cri.ContainerStatus) bool { return s.State == cri.ContainerState_CONTAINER_EXITED })
}

func awaitStatus(c *ctr, done func(*cri.ContainerStatus) bool) (s *cri.ContainerStatus) {
	c.t.Helper()
	eventually(c.t, func() error {
		if s = c.status(); !done(s) {
			return fmt.Errorf("container %s is %s", c.id, s.State)
		}
		return nil
	})
	return s
}

// eventually fails the test where f does not succeed within half a minute, or what
// that is on this machine.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(30*time.Second))
	defer cancel()
	if err := testnode.Until(ctx, f); err != nil {
		t.Fatal(err)
	}
}

// output is what the container wrote, both streams, once it has ended.
func (c *ctr) output() string {
	c.t.Helper()
	c.await()
	return c.written()
}

// written is what the container has written so far.
func (c *ctr) written() string {
	c.t.Helper()
	data, err := os.ReadFile(c.status().LogPath)
	if err != nil {
		c.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) != 4 {
			c.t.Fatalf("log line %q", line)
		}
		out.WriteString(fields[3])
		if fields[2] == "F" {
			out.WriteByte('\n')
		}
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// sleeper is a container that runs until it is killed.
func sleeper() *cri.ContainerConfig {
	c := sh("")
	c.Command = []string{"/bin/sleep", "100000"}
	return c
}

// exec runs a command and returns its output and its exit code.
func (c *ctr) exec(cmd ...string) (string, int32) {
	c.t.Helper()
	r, err := berth.Runtime.ExecSync(c.t.Context(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: cmd})
	if err != nil {
		c.t.Fatal(err)
	}
	return string(r.Stdout) + string(r.Stderr), r.ExitCode
}

// sh runs a script in the container, which has to succeed.
func (c *ctr) sh(script string) string {
	c.t.Helper()
	out, code := c.exec("/bin/sh", "-c", script)
	if code != 0 {
		c.t.Fatalf("%s: exit %d: %s", script, code, out)
	}
	return strings.TrimSuffix(out, "\n")
}

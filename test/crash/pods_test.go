package crash

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

var number atomic.Int64

// pod is a sandbox that a test has asked for.
type pod struct {
	id     string
	config *cri.PodSandboxConfig
}

// newPod configures a pod; nothing is made yet.
func newPod(network cri.NamespaceMode) *pod {
	n := number.Add(1)
	name := fmt.Sprintf("pod%d", n)
	c := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "crash", Uid: fmt.Sprintf("uid-%d", n)},
		LogDirectory: filepath.Join(berth.Logs(), name),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: network, Pid: cri.NamespaceMode_CONTAINER},
		}},
	}
	if n%2 == 0 { // its cgroup is kubelet's, who does not clean up after us
		c.Linux.CgroupParent = kubepods
	}
	return &pod{config: c}
}

func (p *pod) run(ctx context.Context) error {
	r, err := berth.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return err
	}
	if p.id != "" && p.id != r.PodSandboxId {
		return fmt.Errorf("pod %s is now %s", p.id, r.PodSandboxId)
	}
	p.id = r.PodSandboxId
	return nil
}

func (p *pod) remove(ctx context.Context) error {
	if _, err := berth.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return err
	}
	_, err := berth.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	return err
}

// started returns a pod that stands until the test's end.
func started(t *testing.T, network cri.NamespaceMode) *pod {
	t.Helper()
	p := newPod(network)
	must(t, p.run(t.Context()))
	t.Cleanup(func() { must(t, p.remove(context.Background())) })
	return p
}

// container is one that a test has asked for.
type container struct {
	id     string
	pod    *pod
	config *cri.ContainerConfig
}

// script configures a container that runs a script of busybox' shell; nothing
// is made yet. In the script, `nap 0.01` waits so many seconds, without a
// process.
func (p *pod) script(text string) *container {
	name := fmt.Sprintf("c%d", number.Add(1))
	const nap = `mkfifo /nap; exec 3<>/nap; nap() { read -t $1 -u 3 _; }; `
	return &container{pod: p, config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: busybox},
		Command:  []string{"/bin/sh", "-c", nap + text},
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: p.config.Linux.SecurityContext.NamespaceOptions,
		}},
	}}
}

func (c *container) create(ctx context.Context) error {
	r, err := berth.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: c.pod.id, Config: c.config, SandboxConfig: c.pod.config})
	if err != nil {
		return err
	}
	if c.id != "" && c.id != r.ContainerId {
		return fmt.Errorf("container %s is now %s", c.id, r.ContainerId)
	}
	c.id = r.ContainerId
	return nil
}

func (c *container) start(ctx context.Context) error {
	_, err := berth.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.id})
	return err
}

func (c *container) stop(ctx context.Context) error {
	_, err := berth.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: 20})
	return err
}

func (c *container) remove(ctx context.Context) error {
	_, err := berth.Runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c.id})
	return err
}

// begin makes and starts c.
func (c *container) begin(t *testing.T) *container {
	t.Helper()
	must(t, c.create(t.Context()))
	must(t, c.start(t.Context()))
	return c
}

// await waits until c is in the given state and returns its status.
func (c *container) await(t *testing.T, state cri.ContainerState) *cri.ContainerStatus {
	t.Helper()
	var s *cri.ContainerStatus
	eventually(t, func() error {
		r, err := berth.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: c.id})
		if err != nil {
			return err
		}
		if s = r.Status; s.State != state {
			return fmt.Errorf("container %s, %s, is %s, exit %d, %s %s", c.config.Metadata.Name, c.id, s.State, s.ExitCode, s.Reason, s.Message)
		}
		return nil
	})
	return s
}

// awaitExit waits for c's end, which must have that exit code.
func (c *container) awaitExit(t *testing.T, code int32) {
	t.Helper()
	if s := c.await(t, cri.ContainerState_CONTAINER_EXITED); s.ExitCode != code {
		t.Errorf("container %s has the exit code %d, %s %q; it ended with %d", c.config.Metadata.Name, s.ExitCode, s.Reason, s.Message, code)
	}
}

// lines returns what c has written so far.
func (c *container) lines(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.pod.config.LogDirectory, c.config.LogPath))
	must(t, err)
	var all []string
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 || fields[2] != "F" || !strings.HasSuffix(line, "\n") {
			t.Fatalf("log of %s has the line %q", c.config.Metadata.Name, line)
		}
		all = append(all, strings.TrimSpace(fields[3]))
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually fails the test where f does not succeed within some seconds.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Patience(15*time.Second))
	defer cancel()
	must(t, testnode.Until(ctx, f))
}

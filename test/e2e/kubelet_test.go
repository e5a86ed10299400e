package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	testnode "github.com/berth-run/berth/test/node"
)

func TestANodeWithoutConfigurationWaitsForOne(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "be2ecni") //nolint:usetesting // T.TempDir's path is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := startKubelets(t, dir)
	ready := func() (*cri.RuntimeCondition, error) {
		r, err := n.Runtime.Status(t.Context(), &cri.StatusRequest{})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(r.Status.Conditions, func(c *cri.RuntimeCondition) bool { return c.Type == cri.NetworkReady })
		return r.Status.Conditions[i], nil
	}
	c, err := ready()
	if err != nil || c.Status || c.Reason == "" || c.Message == "" {
		t.Errorf("without a configuration: %v, %v", c, err)
	}
	request := &cri.RunPodSandboxRequest{Config: podConfig(t)}
	own(request.Config)
	if _, err := n.Runtime.RunPodSandbox(t.Context(), request); err == nil {
		t.Error("a pod runs without a network")
	}
	write(t, filepath.Join(dir, "cni", "10-test.conflist"), conflist)
	eventually(t, func() error {
		if c, err := ready(); err != nil || !c.Status {
			return fmt.Errorf("not ready: %v, %w", c, err)
		}
		return nil
	})
	t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", "e2ecni0").Run() }) // CNI's plugins leave their bridge
	r, err := n.Runtime.RunPodSandbox(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	s, err := n.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId})
	if err != nil || !strings.HasPrefix(s.Status.Network.Ip, "10.77.") {
		t.Errorf("status %v, %v", s, err)
	}
	if err := os.Remove(filepath.Join(dir, "cni", "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if c, err := ready(); err != nil || c.Status {
			return fmt.Errorf("still ready: %v, %w", c, err)
		}
		return nil
	})
	if _, err := n.Runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId}); err != nil {
		t.Errorf("removal without the configuration: %v", err)
	}
}

const conflist = `{"cniVersion":"1.0.0","name":"e2e","plugins":[
  {"type":"bridge","bridge":"e2ecni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.77.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"/run/e2e-cni"}},
  {"type":"portmap","capabilities":{"portMappings":true}}]}`

// startKubelets starts a node that is not standalone: berth-runtime first, as
// systemd does.
func startKubelets(t *testing.T, dir string) *testnode.Node {
	t.Helper()
	n, err := testnode.New(dir, testnode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.State(), 0o711); err != nil {
		t.Fatal(err)
	}
	anchor := exec.Command(filepath.Join(os.Getenv("BERTH_BIN"), "berth-runtime"), "--state", n.State())
	if err := anchor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := anchor.Wait(); err != nil {
			t.Errorf("berth-runtime: %v", err)
		}
	})
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	return n
}

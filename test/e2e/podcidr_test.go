package e2e

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func setPodCIDR(t *testing.T, cidr string) error {
	t.Helper()
	_, err := berth.Runtime.UpdateRuntimeConfig(context.WithoutCancel(t.Context()), &cri.UpdateRuntimeConfigRequest{
		RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: cidr}},
	})
	return err
}

// networkInfo is what a verbose status says of the network.
func networkInfo(t *testing.T) map[string]string {
	t.Helper()
	r, err := berth.Runtime.Status(context.WithoutCancel(t.Context()), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	info := map[string]string{}
	if err := json.Unmarshal([]byte(r.Info["cni"]), &info); err != nil {
		t.Fatal(err)
	}
	return info
}

func TestNewPodsAreInThePodCIDR(t *testing.T) {
	before := networkInfo(t)["subnet"]
	t.Cleanup(func() {
		if err := setPodCIDR(t, before); err != nil || networkInfo(t)["subnet"] != before {
			t.Errorf("back to %s: %v", before, err)
		}
	})
	for _, bad := range []string{"10.213.0.0", "10.213.0.0/16,10.214.0.0/16", "pods"} {
		if err := setPodCIDR(t, bad); code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := setPodCIDR(t, ""); err != nil || networkInfo(t)["subnet"] != before {
		t.Errorf("nothing: %v", err)
	}
	inside := func(p *pod, subnet string) {
		t.Helper()
		if v4, _ := p.addresses(); !netip.MustParsePrefix(subnet).Contains(netip.MustParseAddr(v4)) {
			t.Errorf("address %s, want one of %s", v4, subnet)
		}
	}
	const cidr = "10.213.7.0/24"
	old := runPod(t, own)
	if err := setPodCIDR(t, cidr); err != nil {
		t.Fatal(err)
	}
	inside(old, before)
	withoutDaemon(t, berth.Kill, func() {})
	beside := runPod(t, own) // it shares the bridge with a pod that stays
	inside(beside, before)
	beside.remove()
	old.remove()
	p := runPod(t, own)
	inside(p, cidr)
	c := p.start(server(80, "new"))
	v4, _ := p.addresses()
	wantAnswer(t, v4+":80", "new")
	c.stop(0)
	withoutDaemon(t, berth.Kill, func() {})
	inside(runPod(t, own), cidr)
	if got := networkInfo(t)["podCIDR"]; got != cidr {
		t.Errorf("recorded: %q", got)
	}
}

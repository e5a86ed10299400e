package network

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func isThere(link string) bool {
	_, err := netlink.LinkByName(link)
	return err == nil
}

// attachAndTearDown has a pod come and go, and then the network.
func attachAndTearDown(t *testing.T, s *Service) {
	t.Helper()
	if _, err := s.Attach(t.Context(), pod(newNetNS(t), "a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestABridgeThatWasThereBeforeStays(t *testing.T) {
	host(t)
	run(t, "ip", "link", "add", "br0", "type", "bridge")
	t.Cleanup(func() { removeLink("br0") })
	attachAndTearDown(t, open(t, Options{Builtin: &Builtin{Bridge: "br0"}}))
	if !isThere("br0") {
		t.Error("it is gone")
	}
}

func TestABridgeWithAPortStays(t *testing.T) {
	host(t)
	s := open(t, Options{Builtin: &Builtin{}})
	if err := s.bridge.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "add", "nic0", "type", "veth", "peer", "name", "nic1")
	t.Cleanup(func() { removeLink("nic0") })
	run(t, "ip", "link", "set", "nic0", "master", defaultBridge)
	attachAndTearDown(t, s)
	if !isThere(defaultBridge) {
		t.Error("it is gone")
	}
	removeLink("nic0")
	if err := s.Teardown(t.Context()); err != nil || isThere(defaultBridge) {
		t.Errorf("without the port it stays: %v", err)
	}
}

func TestAnotherDaemonsBridgeStays(t *testing.T) {
	host(t)
	first, second := openBuiltin(t, Builtin{}), open(t, Options{Builtin: &Builtin{}})
	if err := first.bridge.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	attachAndTearDown(t, second)
	if !isThere(defaultBridge) {
		t.Error("it is gone")
	}
	if rules := run(t, "iptables", "-S", "FORWARD"); rules == "-P FORWARD ACCEPT\n" {
		t.Error("the host does not forward for it any more")
	}
}

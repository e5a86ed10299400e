package network

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestBuiltinDualStack(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{Subnet6: netip.MustParsePrefix("fd00:be47::/64")})
	nsA, nsB := newNetNS(t), newNetNS(t)
	req := pod(nsA, "a")
	req.Ports = []PortMapping{{ContainerPort: 80, HostPort: 8080}}
	a := attach(t, s, req)
	attach(t, s, pod(nsB, "b"))
	serve(t, nsA, "tcp", ":80", "pod a")
	if len(a.IPs) != 2 || !a.IPs[1].Is6() {
		t.Fatalf("addresses %v", a.IPs)
	}
	for _, ip := range a.IPs {
		for _, from := range []string{nsB, ""} {
			if got := ask(t, from, "tcp", net.JoinHostPort(ip.String(), "80")); got != "pod a" {
				t.Errorf("%s from %q: %q", ip, from, got)
			}
		}
	}
	if got := ask(t, nsB, "tcp", "[fd00:be47::1]:8080"); got != "pod a" {
		t.Errorf("host port over IPv6: %q", got)
	}
}

// TestBuiltinMasqueradesAndPublishes puts another machine beside the host.
func TestBuiltinMasqueradesAndPublishes(t *testing.T) {
	host(t)
	outside := outsideNetNS(t)
	s := openBuiltin(t, Builtin{})
	publishOutside(t, s, outside)
}

// TestBuiltinPassesADroppingHost has the host drop what it is not told of, as
// Docker and ufw do.
func TestBuiltinPassesADroppingHost(t *testing.T) {
	host(t)
	outside := outsideNetNS(t)
	run(t, "iptables", "-P", "FORWARD", "DROP")
	untouched := run(t, "iptables", "-S", "FORWARD")
	s := open(t, Options{Builtin: &Builtin{}})
	t.Run("pod", func(t *testing.T) { publishOutside(t, s, outside) })
	t.Run("pod after a restart", func(t *testing.T) { attach(t, open(t, s.opts), pod("", "again")) })
	if got := run(t, "iptables", "-S", "FORWARD"); strings.Count(got, "ACCEPT") != 2 {
		t.Errorf("rules:\n%s", got)
	}
	if err := s.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "iptables", "-S", "FORWARD"); got != untouched {
		t.Errorf("rules stay:\n%s", got)
	}
}

// outsideNetNS makes another machine, 203.0.113.2, which knows no way to pods,
// beside the host, 203.0.113.1.
func outsideNetNS(t *testing.T) string {
	t.Helper()
	outside := newNetNS(t)
	target, err := os.Open(outside)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "out0"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "in0", PeerNamespace: netlink.NsFd(int(target.Fd()))}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeLink("out0") })
	run(t, "ip", "addr", "add", "203.0.113.1/24", "dev", "out0")
	run(t, "ip", "link", "set", "out0", "up")
	if err := inNetNS(outside, func() error {
		run(t, "ip", "addr", "add", "203.0.113.2/24", "dev", "in0")
		run(t, "ip", "link", "set", "in0", "up")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return outside
}

func publishOutside(t *testing.T, s *Service, outside string) {
	t.Helper()
	netns := newNetNS(t)
	req := pod(netns, "a")
	req.Ports = []PortMapping{{ContainerPort: 80, HostPort: 8080}}
	attach(t, s, req)
	serve(t, netns, "tcp", ":80", "pod a")
	serve(t, outside, "tcp", ":80", "outside")
	if got := ask(t, netns, "tcp", "203.0.113.2:80"); got != "outside" {
		t.Errorf("out: %q", got)
	}
	if got := ask(t, outside, "tcp", "203.0.113.1:8080"); got != "pod a" {
		t.Errorf("in: %q", got)
	}
}

func TestBuiltinNeedsNoPluginBinary(t *testing.T) {
	host(t)
	s := open(t, Options{Builtin: &Builtin{}, BinDirs: []string{t.TempDir()}})
	req := pod(newNetNS(t), "a")
	req.Ports = []PortMapping{{ContainerPort: 80, HostPort: 8080}}
	if err := s.Status(t.Context()); err != nil {
		t.Error(err)
	}
	res, err := s.Attach(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	restarted := open(t, s.opts) // to which the pod is not one that is being attached
	if problems, err := restarted.Check(t.Context(), []string{"a"}, true); err != nil || len(problems) != 0 {
		t.Errorf("Check: %+v, %v", problems, err)
	}
	for _, damage := range [][]string{
		{"nft", "flush", "chain", "ip", "cni_hostport", "hostports"},
		{"ip", "link", "set", res.Interfaces[1].Name, "nomaster"},
	} {
		run(t, damage[0], damage[1:]...)
		if problems, err := restarted.Check(t.Context(), []string{"a"}, false); err != nil || len(problems) != 1 {
			t.Errorf("Check after %v: %+v, %v", damage, problems, err)
		}
	}
	if err := s.Teardown(t.Context()); err == nil {
		t.Error("torn down with a pod attached")
	}
	if err := s.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := run(t, "nft", "list", "tables")
	if strings.Contains(left, "cni_") {
		t.Errorf("tables stay:\n%s", left)
	}
}

func TestPodsOfTheBuiltinNetworkOutliveIt(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	bare := s.opts
	bare.BinDirs = []string{t.TempDir()}
	if _, err := s.Attach(t.Context(), publishing(t, "a", 8080)); err != nil {
		t.Fatal(err)
	}
	bare.Builtin, bare.ConfDir = nil, t.TempDir() // as after a restart without --standalone
	other := open(t, bare)
	if problems, err := other.Check(t.Context(), []string{"a"}, false); err != nil || len(problems) != 0 {
		t.Errorf("Check: %+v, %v", problems, err)
	}
	if err := other.Detach(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	s.records.Delete("a") // which the other has removed
}

func TestSubnetStaysTheSame(t *testing.T) {
	root := t.TempDir()
	first := open(t, Options{Root: root, Builtin: &Builtin{}, BinDirs: []string{"/nowhere"}})
	second := open(t, Options{Root: root, Builtin: &Builtin{}, BinDirs: []string{"/nowhere"}})
	if first.builtin.Load().Subnet != second.builtin.Load().Subnet {
		t.Errorf("%v, then %v", first.builtin.Load().Subnet, second.builtin.Load().Subnet)
	}
}

func TestBandwidthIsLimited(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	req := pod(newNetNS(t), "a")
	req.Annotations = map[string]string{ingressAnnotation: "10M", egressAnnotation: "20M"}
	res := attach(t, s, req)
	out, err := exec.Command("tc", "qdisc", "show").CombinedOutput()
	if err != nil {
		t.Fatalf("tc: %v: %s", err, out)
	}
	for _, want := range []string{"tbf", "rate 10Mbit", "rate 20Mbit", res.Interfaces[1].Name} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth/pkg/errs"
)

func setPodCIDR(t *testing.T, s *Service, text string) {
	t.Helper()
	if err := s.SetPodCIDR(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// wantInside fails the test unless there is one address for each subnet, in it.
func wantInside(t *testing.T, what string, ips []netip.Addr, subnets ...string) {
	t.Helper()
	if len(ips) != len(subnets) {
		t.Fatalf("%s: addresses %v, want some of %v", what, ips, subnets)
	}
	for i, s := range subnets {
		if !netip.MustParsePrefix(s).Contains(ips[i]) {
			t.Errorf("%s: %v, want one of %s", what, ips[i], s)
		}
	}
}

func TestTheBuiltinNetworkMovesToThePodCIDROnceItIsEmpty(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	old := s.builtin.Load().Subnet.String()
	here := func(id string) []netip.Addr {
		t.Helper()
		res, err := s.Attach(t.Context(), pod(newNetNS(t), id))
		if err != nil {
			t.Fatal(err)
		}
		return res.IPs
	}
	leave := func(id string) {
		t.Helper()
		if err := s.Detach(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	wantInside(t, "before", here("a"), old)
	setPodCIDR(t, s, "10.200.1.0/24,fd00:c1d::/64")
	wantInside(t, "beside a pod of the old subnet", here("b"), old)
	leave("a")
	leave("b")
	wantInside(t, "once they are gone", here("c"), "10.200.1.0/24", "fd00:c1d::/64")

	restarted := open(t, s.opts)
	setPodCIDR(t, restarted, "10.200.1.0/24,fd00:c1d::/64") // as kubelet does when it starts
	res, err := restarted.Attach(t.Context(), pod(newNetNS(t), "d"))
	if err != nil {
		t.Fatal(err)
	}
	wantInside(t, "after a restart", res.IPs, "10.200.1.0/24", "fd00:c1d::/64")
	if got := restarted.Info()["podCIDR"]; got != "10.200.1.0/24,fd00:c1d::/64" {
		t.Errorf("info: %q", got)
	}
	if err := errors.Join(restarted.Detach(t.Context(), "d"), s.Detach(t.Context(), "c")); err != nil {
		t.Fatal(err)
	}
	setPodCIDR(t, s, "10.200.2.0/24")
	if b := s.builtin.Load(); b.Subnet.String() != "10.200.2.0/24" || b.Subnet6.IsValid() {
		t.Errorf("empty, it did not move at once: %+v", b)
	}
	wantInside(t, "without IPv6", here("e"), "10.200.2.0/24")
	leave("e")
}

func TestAConfiguredSubnetStays(t *testing.T) {
	root := t.TempDir()
	given := Builtin{Subnet: netip.MustParsePrefix("10.99.0.0/24")}
	s := open(t, Options{Root: root, Builtin: &given, BinDirs: []string{"/nowhere"}})
	setPodCIDR(t, s, "10.200.1.0/24")
	for _, s := range []*Service{s, open(t, s.opts)} {
		if b := s.builtin.Load(); b.Subnet != given.Subnet || s.Info()["podCIDR"] != "10.200.1.0/24" {
			t.Errorf("subnet %s, info %v", b.Subnet, s.Info())
		}
	}
}

func TestAPodCIDRIsRecordedBesideCNIConfigurations(t *testing.T) {
	s := open(t, Options{ConfDir: t.TempDir(), BinDirs: []string{"/nowhere"}})
	setPodCIDR(t, s, "")
	if got, ok := s.Info()["podCIDR"]; ok {
		t.Errorf("nothing was recorded as %q", got)
	}
	setPodCIDR(t, s, "10.200.1.0/24")
	setPodCIDR(t, s, "")
	if err := s.SetPodCIDR(t.Context(), "10.200.1.0"); !errors.Is(err, errs.Invalid) {
		t.Errorf("got %v", err)
	}
	if got := open(t, s.opts).Info()["podCIDR"]; got != "10.200.1.0/24" {
		t.Errorf("after a restart: %q", got)
	}
	if err := os.WriteFile(filepath.Join(s.dir, podCIDRFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, ok := open(t, s.opts).Info()["podCIDR"]; ok {
		t.Errorf("what cannot be read is %q", got)
	}
}

func TestAPodCIDRThatTheHostUsesIsRefused(t *testing.T) {
	host(t)
	run(t, "ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
	t.Cleanup(func() { removeLink("lan0") })
	run(t, "ip", "addr", "add", "10.200.3.7/24", "dev", "lan0")
	run(t, "ip", "addr", "add", "fd00:3::7/64", "dev", "lan0")
	run(t, "ip", "link", "set", "lan0", "up")
	run(t, "ip", "link", "set", "lan1", "up")
	s := openBuiltin(t, Builtin{})
	before := *s.builtin.Load()
	for _, text := range []string{"10.200.0.0/16", "10.201.0.0/16,fd00:3::/112"} {
		if err := s.SetPodCIDR(t.Context(), text); !errors.Is(err, errs.Conflict) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if b := *s.builtin.Load(); b != before || s.Info()["podCIDR"] != "" {
		t.Errorf("network %+v, info %v", b, s.Info())
	}
}

func TestTheNetworkStaysOnABridgeThatOthersUse(t *testing.T) {
	host(t)
	run(t, "ip", "link", "add", "br0", "type", "bridge")
	t.Cleanup(func() { removeLink("br0") })
	s := openBuiltin(t, Builtin{Bridge: "br0"})
	old := s.builtin.Load().Subnet.String()
	if err := s.SetPodCIDR(t.Context(), "10.200.1.0/24"); !errors.Is(err, errs.Conflict) {
		t.Errorf("got %v", err)
	}
	wantInside(t, "afterwards", attach(t, s, pod("", "a")).IPs, old)
}

func TestPodsComeAndGoWhileTheNetworkMoves(t *testing.T) {
	host(t)
	s := openBuiltin(t, Builtin{})
	const pods, moves = 3, 6
	failed := make(chan error, pods)
	for i := range pods {
		netns := newNetNS(t)
		go func() {
			id, err := fmt.Sprint("p", i), error(nil)
			for n := 0; n < moves && err == nil; n++ {
				if _, err = s.Attach(t.Context(), pod(netns, id)); err == nil {
					err = s.Detach(t.Context(), id)
				}
			}
			failed <- err
		}()
	}
	for n := range moves {
		setPodCIDR(t, s, fmt.Sprintf("10.20%d.0.0/24,fd00:%d::/64", n, n+1))
	}
	for range pods {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	wantInside(t, "in the end", attach(t, s, pod("", "last")).IPs, "10.205.0.0/24", "fd00:6::/64")
}

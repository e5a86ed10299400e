// Package subnet knows subnets for pods: those that a cluster gives to a node, and
// which ones the host does not route elsewhere. It keeps no state.
package subnet

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/berth-run/berth/pkg/errs"
)

// Pair has a subnet of each family, or of one.
type Pair struct {
	V4 netip.Prefix `json:"v4,omitzero"`
	V6 netip.Prefix `json:"v6,omitzero"`
}

// String is what Parse reads.
func (c Pair) String() string {
	var all []string
	for _, p := range []netip.Prefix{c.V4, c.V6} {
		if p.IsValid() {
			all = append(all, p.String())
		}
	}
	return strings.Join(all, ",")
}

// Parse reads kubelet's form of pod CIDRs: subnets with a comma between, the
// primary one first. The error is errs.Invalid.
func Parse(text string) (Pair, error) {
	var c Pair
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return Pair{}, fmt.Errorf("pod CIDR %q: %w: %w", text, errs.Invalid, err)
		}
		family := &c.V4
		if p.Addr().Is6() {
			family = &c.V6
		}
		switch a := p.Addr(); {
		case family.IsValid():
			return Pair{}, fmt.Errorf("pod CIDR %q has two subnets of one family: %w", text, errs.Invalid)
		case a.BitLen()-p.Bits() < 2: // the network, the gateway, a pod
			return Pair{}, fmt.Errorf("pod CIDR %q has no room for a pod: %w", text, errs.Invalid)
		case p.Bits() == 0 || a.Is4In6() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast():
			return Pair{}, fmt.Errorf("pod CIDR %q is not for pods: %w", text, errs.Invalid)
		}
		*family = p.Masked()
	}
	return c, nil
}

// Pick returns the first of 10.88.0.0/16 to 10.127.0.0/16 that overlaps no route
// but the bridge's own.
func Pick(bridge string) (netip.Prefix, error) {
	used, err := routed(bridge, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, err
	}
	return firstFree(used)
}

func firstFree(used []netip.Prefix) (netip.Prefix, error) {
	for second := byte(88); second < 128; second++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second}), 16)
		if overlapping(p, used) == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("every subnet from 10.88.0.0/16 to 10.127.0.0/16 is routed elsewhere, choose one: %w", errs.Conflict)
}

// Free returns errs.Conflict where the host routes a subnet of c, which now does not
// have, to anything but the bridge.
func (c Pair) Free(now Pair, bridge string) error {
	for _, k := range []struct {
		family   int
		new, old netip.Prefix
	}{{netlink.FAMILY_V4, c.V4, now.V4}, {netlink.FAMILY_V6, c.V6, now.V6}} {
		if !k.new.IsValid() || k.new == k.old {
			continue
		}
		used, err := routed(bridge, k.family)
		if err != nil {
			return err
		}
		if u := overlapping(k.new, used); u != nil {
			return fmt.Errorf("subnet %s: this host routes %s elsewhere: %w", k.new, u, errs.Conflict)
		}
	}
	return nil
}

func overlapping(p netip.Prefix, used []netip.Prefix) *netip.Prefix {
	for i := range used {
		if used[i].Overlaps(p) {
			return &used[i]
		}
	}
	return nil
}

// routed returns what the main routing table routes, but for default routes and
// those of the bridge itself.
func routed(bridge string, family int) ([]netip.Prefix, error) {
	own := -1
	if link, err := netlink.LinkByName(bridge); err == nil {
		own = link.Attrs().Index
	}
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var used []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == own {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		if ones, _ := r.Dst.Mask.Size(); ok && ones > 0 {
			used = append(used, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	return used, nil
}

// Package subnet knows which subnets for pods the host does not route elsewhere. It
// keeps no state.
package subnet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/berth-run/berth/pkg/errs"
)

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

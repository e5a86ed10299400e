package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/network/bridge"
	"github.com/berth-run/berth/pkg/network/native"
	"github.com/berth-run/berth/pkg/network/subnet"
)

// Builtin describes the network that Berth brings along for a machine without
// any CNI configuration: a bridge with a subnet of its own, masquerade and host
// ports. The kernel's nftables is used for both, IP forwarding is switched on,
// and iptables, where the host has it, is told to forward for the bridge. The
// zero value works.
type Builtin struct {
	// Bridge is the bridge's name; default berth0.
	Bridge string
	// Subnet is the pods' IPv4 subnet. Where it is not given, Open picks one
	// that no local route overlaps, and keeps to it until SetPodCIDR.
	Subnet netip.Prefix
	// Subnet6 is the pods' IPv6 subnet; without it, and without one of
	// SetPodCIDR's, pods have IPv4 alone.
	Subnet6 netip.Prefix
	// MTU of the pods' interfaces; zero leaves it to the kernel.
	MTU int
}

const (
	builtinName   = "berth"
	builtinFile   = "builtin.json" // in the directory of the records
	defaultBridge = "berth0"
)

// builtinState is what must stay the same across restarts.
type builtinState struct {
	Version int          `json:"version"`
	Subnet  netip.Prefix `json:"subnet"`
	Subnet6 netip.Prefix `json:"subnet6,omitzero"` // SetPodCIDR's
}

func (s *Service) openBuiltin() error {
	b := *s.opts.Builtin
	if b.Bridge == "" {
		b.Bridge = defaultBridge
	}
	if !b.Subnet.IsValid() {
		own, err := ownSubnets(s.dir, b.Bridge)
		if err != nil {
			return fmt.Errorf("open built-in network: %w", err)
		}
		b.Subnet = own.Subnet
		if !b.Subnet6.IsValid() {
			b.Subnet6 = own.Subnet6
		}
	}
	if !b.Subnet.Addr().Is4() || b.Subnet6.IsValid() && !b.Subnet6.Addr().Is6() {
		return fmt.Errorf("open built-in network: subnets %s and %s: %w", b.Subnet, b.Subnet6, errs.Invalid)
	}
	list, err := b.conflist(s.dir)
	if err == nil {
		err = native.DropLeases(filepath.Join(ipamDir(s.dir), builtinName), func(podID string) bool { return s.records.Get(podID) != nil })
	}
	if err != nil {
		return fmt.Errorf("open built-in network: %w", err)
	}
	s.builtin.Store(&b)
	s.bridge = &bridge.Bridge{Name: b.Bridge, MTU: b.MTU, V6: b.Subnet6.IsValid(), Dir: s.dir}
	s.conf.Store(&configuration{networks: []network{{list: list}}})
	return nil
}

// ipamDir is where the addresses of pods are noted.
func ipamDir(dir string) string { return filepath.Join(dir, "ipam") }

// ownSubnets returns those of the last run or picks a new one.
func ownSubnets(dir, bridge string) (builtinState, error) {
	path := filepath.Join(dir, builtinFile)
	var state builtinState
	err := statefile.Read(path, &state)
	if err == nil && state.Subnet.IsValid() {
		return state, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, statefile.ErrCorrupt) {
		return state, err
	}
	state = builtinState{Version: recordVersion}
	if state.Subnet, err = subnet.Pick(bridge); err != nil {
		return state, err
	}
	return state, statefile.WriteDurable(path, state)
}

func (b *Builtin) conflist(dir string) (*libcni.NetworkConfigList, error) {
	br := bridge.Bridge{Name: b.Bridge, MTU: b.MTU}
	data, err := br.Conflist(builtinName, b.Subnet, b.Subnet6, ipamDir(dir))
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(data)
}

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
	// that no local route overlaps, and keeps to it.
	Subnet netip.Prefix
	// Subnet6 is the pods' IPv6 subnet; without it pods have IPv4 alone.
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
}

func (s *Service) openBuiltin() error {
	b := *s.opts.Builtin
	if b.Bridge == "" {
		b.Bridge = defaultBridge
	}
	if !b.Subnet.IsValid() {
		var err error
		if b.Subnet, err = s.ownSubnet(b.Bridge); err != nil {
			return fmt.Errorf("open built-in network: %w", err)
		}
	}
	if !b.Subnet.Addr().Is4() || b.Subnet6.IsValid() && !b.Subnet6.Addr().Is6() {
		return fmt.Errorf("open built-in network: subnets %s and %s: %w", b.Subnet, b.Subnet6, errs.Invalid)
	}
	ipam := filepath.Join(s.dir, "ipam")
	list, err := b.conflist(ipam)
	if err == nil {
		err = native.DropLeases(filepath.Join(ipam, builtinName), func(podID string) bool { return s.records.Get(podID) != nil })
	}
	if err != nil {
		return fmt.Errorf("open built-in network: %w", err)
	}
	s.builtin, s.bridge = &b, &bridge.Bridge{Name: b.Bridge, MTU: b.MTU, V6: b.Subnet6.IsValid(), Dir: s.dir}
	s.conf.Store(&configuration{networks: []network{{list: list}}})
	return nil
}

// ownSubnet returns the subnet of the last run or picks a new one.
func (s *Service) ownSubnet(bridge string) (netip.Prefix, error) {
	path := filepath.Join(s.dir, builtinFile)
	var state builtinState
	err := statefile.Read(path, &state)
	if err == nil && state.Subnet.IsValid() {
		return state.Subnet, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, statefile.ErrCorrupt) {
		return netip.Prefix{}, err
	}
	state = builtinState{Version: recordVersion}
	if state.Subnet, err = subnet.Pick(bridge); err != nil {
		return netip.Prefix{}, err
	}
	return state.Subnet, statefile.WriteDurable(path, state)
}

func (b *Builtin) conflist(ipamDir string) (*libcni.NetworkConfigList, error) {
	br := bridge.Bridge{Name: b.Bridge, MTU: b.MTU}
	data, err := br.Conflist(builtinName, b.Subnet, b.Subnet6, ipamDir)
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(data)
}

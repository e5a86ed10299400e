package native

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/utils/sysctl"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// ensureBridge returns the bridge, made and set up where it is not.
func (e *Exec) ensureBridge(conf *bridgeConf) (*netlink.Bridge, error) {
	if br, err := bridgeByName(conf.Bridge); err == nil && br.Flags&net.FlagUp != 0 && (!conf.Promisc || br.Promisc != 0) {
		return br, nil
	}
	e.bridges.Lock()
	defer e.bridges.Unlock()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = conf.Bridge, conf.MTU
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, fmt.Errorf("add bridge %q: %w", conf.Bridge, err)
	}
	if conf.Promisc {
		if err := netlink.SetPromiscOn(br); err != nil {
			return nil, fmt.Errorf("set promiscuous mode of %q: %w", conf.Bridge, err)
		}
	}
	br, err := bridgeByName(conf.Bridge)
	if err != nil {
		return nil, err
	}
	_, _ = sysctl.Sysctl(fmt.Sprintf("net/ipv6/conf/%s/accept_ra", conf.Bridge), "0") // absent without IPv6
	if err := netlink.LinkSetUp(br); err != nil {
		return nil, fmt.Errorf("set %q up: %w", conf.Bridge, err)
	}
	return br, nil
}

func bridgeByName(name string) (*netlink.Bridge, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("look up %q: %w", name, err)
	}
	br, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("%q already exists but is not a bridge", name)
	}
	return br, nil
}

// ensureGateways gives the bridge the gateways' addresses and lets the host
// forward.
func (e *Exec) ensureGateways(br *netlink.Bridge, ips []*current.IPConfig) error {
	e.bridges.Lock()
	defer e.bridges.Unlock()
	for _, i := range ips {
		family, forward := netlink.FAMILY_V4, "/proc/sys/net/ipv4/ip_forward"
		if i.Address.IP.To4() == nil {
			family, forward = netlink.FAMILY_V6, "/proc/sys/net/ipv6/conf/all/forwarding"
		}
		if err := ensureAddress(br, family, &net.IPNet{IP: i.Gateway, Mask: i.Address.Mask}); err != nil {
			return err
		}
		if err := enable(forward); err != nil {
			return fmt.Errorf("enable forwarding: %w", err)
		}
	}
	return nil
}

func ensureAddress(br *netlink.Bridge, family int, want *net.IPNet) error {
	addrs, err := netlink.AddrList(br, family)
	if err != nil {
		return fmt.Errorf("list addresses of %q: %w", br.Name, err)
	}
	for _, a := range addrs {
		if a.IPNet.String() == want.String() {
			return nil
		}
		if family == netlink.FAMILY_V4 || a.Contains(want.IP) || want.Contains(a.IP) {
			return fmt.Errorf("%q already has an IP address different from %v", br.Name, want)
		}
	}
	if err := netlink.AddrAdd(br, &netlink.Addr{IPNet: want}); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("add address %s to %q: %w", want, br.Name, err)
	}
	// A MAC that was set stays; else the bridge takes its lowest port's, which
	// changes as pods come and go.
	if br, err = bridgeByName(br.Name); err != nil {
		return err
	}
	if err := netlink.LinkSetHardwareAddr(br, br.HardwareAddr); err != nil {
		return fmt.Errorf("set MAC of %q: %w", br.Name, err)
	}
	return nil
}

// enable writes 1 to a sysctl that is not 1, and says so: the whole host is
// concerned.
func enable(path string) error {
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(bytes.TrimSpace(now), []byte("1")) {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		return err
	}
	klog.Background().Info("Host now forwards packets for pods", "sysctl", path)
	return nil
}

// bridgeDel removes the pod's end of the link, and with it the host's, its
// addresses and its rules. All of it may be gone already.
func (e *Exec) bridgeDel(ctx context.Context, c *call, conf *bridgeConf) error {
	prev, err := conf.prevResult()
	if err != nil {
		return errDecline
	}
	var nets []*net.IPNet
	if prev != nil {
		nets = addresses(prev)
	}
	unfiltered := make(chan error, 1)
	if conf.IPMasq {
		go func() { unfiltered <- e.unmasquerade(ctx, c, conf, nets) }()
	} else {
		unfiltered <- nil
	}
	err = e.delLink(c, conf, prev)
	if err == nil {
		err = e.release(c)
	}
	return errors.Join(err, <-unfiltered)
}

// delLink removes the pod's interface, by the host's end where the namespace is
// not there any more but a process still holds it.
func (e *Exec) delLink(c *call, conf *bridgeConf, prev *current.Result) error {
	if c.netns == "" {
		return delHostEnd(prev)
	}
	netns, err := os.Open(c.netns)
	if errors.Is(err, os.ErrNotExist) {
		return delHostEnd(prev)
	}
	if err != nil {
		return err
	}
	defer netns.Close()
	var fs unix.Statfs_t
	if unix.Fstatfs(int(netns.Fd()), &fs) == nil && fs.Type != unix.NSFS_MAGIC {
		return delHostEnd(prev)
	}
	return e.retire(netns, c.ifName, conf.Bridge)
}

func delHostEnd(prev *current.Result) error {
	if prev == nil {
		return nil
	}
	for _, i := range prev.Interfaces {
		if i.Sandbox != "" {
			continue
		}
		link, err := netlink.LinkByName(i.Name)
		if err != nil || link.Type() != "veth" || link.Attrs().HardwareAddr.String() != i.Mac {
			continue
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, syscall.ENODEV) {
			return err
		}
	}
	return nil
}

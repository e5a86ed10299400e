package native

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
)

// check does CHECK, which nobody waits for, of plugins without a binary.
func check(e *Exec, plugin string, c *call) error {
	if !c.bundled {
		return errDecline
	}
	switch plugin {
	case "bridge":
		return bridgeCheck(e, c)
	case "portmap":
		return portmapCheck(&e.filter, c)
	case "bandwidth":
		_, err := bandwidth(c)
		return err
	}
	return errDecline
}

// bridgeCheck looks for the pod's address with host-local, for its interface
// with all addresses, and for the other end in the bridge.
func bridgeCheck(e *Exec, c *call) error {
	conf, err := e.parseBridge(c)
	if err != nil {
		return err
	}
	prev, err := conf.prevResult()
	if err != nil || prev == nil {
		return errors.Join(errors.New("prevResult is missing"), err)
	}
	_, store, err := openStore(c)
	if err != nil {
		return err
	}
	defer store.Close()
	if !store.FindByID(c.container, c.ifName) {
		return fmt.Errorf("no address is allocated to %s", c.container)
	}
	netns, err := os.Open(c.netns)
	if err != nil {
		return err
	}
	defer netns.Close()
	var pod netlink.Link
	err = InNetNS(netns, func() error {
		if pod, err = netlink.LinkByName(c.ifName); err != nil {
			return fmt.Errorf("look up %s: %w", c.ifName, err)
		}
		return hasAddresses(pod, podAddresses(prev, c.ifName))
	})
	if err != nil {
		return err
	}
	if _, ok := hostEnd(pod, conf.Bridge); !ok {
		return fmt.Errorf("%s is not connected to bridge %s", c.ifName, conf.Bridge)
	}
	return nil
}

func hasAddresses(link netlink.Link, want []net.IPNet) error {
	has, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, w := range want {
		if !slices.ContainsFunc(has, func(a netlink.Addr) bool { return a.IP.Equal(w.IP) }) {
			return fmt.Errorf("%s has lost address %s", link.Attrs().Name, w.IP)
		}
	}
	return nil
}

// portmapCheck counts the rules of the pod's ports.
func portmapCheck(f *filter, c *call) error {
	conf, err := parsePortmap(c)
	if err != nil {
		return err
	}
	if f.backend(conf.Backend) != backendNFT {
		return errDecline
	}
	prev, err := conf.prevResult()
	if err != nil || prev == nil {
		return errors.Join(errors.New("prevResult is missing"), err)
	}
	for _, pod := range podAddresses(prev, c.ifName) {
		v6, want := pod.IP.To4() == nil, 0
		for i := range conf.RuntimeConfig.Ports {
			if _, use := conf.RuntimeConfig.Ports[i].hostAddress(v6); use {
				want++
			}
		}
		has, err := f.countPorts(c.container, v6)
		if err != nil {
			return err
		}
		if has < want {
			return fmt.Errorf("%d of %d rules for host ports to %s are there", has, want, pod.IP)
		}
	}
	return nil
}

func (f *filter) countPorts(container string, v6 bool) (n int, err error) {
	err = f.transact(func(conn *nftables.Conn) error {
		n = 0
		t := portsTable(v6)
		rules, err := conn.GetRules(t, &nftables.Chain{Name: portsChain, Table: t})
		for _, r := range rules {
			if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && comment == container {
				n++
			}
		}
		return err
	})
	return n, err
}

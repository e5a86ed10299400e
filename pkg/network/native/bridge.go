package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ip"
	"github.com/containernetworking/plugins/pkg/ipam"
	"github.com/containernetworking/plugins/pkg/utils/sysctl"
	"github.com/vishvananda/netlink"

	"github.com/berth-run/berth/pkg/internal/undo"
)

// bridgeConf has the options of the bridge plugin that are implemented here.
type bridgeConf struct {
	common
	Bridge           string          `json:"bridge"`
	IsGateway        bool            `json:"isGateway"`
	IsDefaultGateway bool            `json:"isDefaultGateway"`
	IPMasq           bool            `json:"ipMasq"`
	IPMasqBackend    *string         `json:"ipMasqBackend"`
	MTU              int             `json:"mtu"`
	Hairpin          bool            `json:"hairpinMode"`
	Promisc          bool            `json:"promiscMode"`
	PortIsolation    bool            `json:"portIsolation"`
	IPAM             json.RawMessage `json:"ipam"`
	RuntimeConfig    struct {
		DNS json.RawMessage `json:"dns"` // which the plugin does not look at
	} `json:"runtimeConfig"`
}

func parseBridge(c *call) (*bridgeConf, error) {
	conf := bridgeConf{Bridge: "cni0"}
	if err := c.decode(&conf); err != nil {
		return nil, err
	}
	var kind struct{ Type string }
	_ = json.Unmarshal(conf.IPAM, &kind) // an IPAM that is no object has no type
	if kind.Type != "host-local" || !conf.versionKnown() || c.asksByArgs() || conf.Hairpin && conf.Promisc {
		return nil, errDecline
	}
	if conf.IPMasqBackend != nil && *conf.IPMasqBackend != backendNFT && *conf.IPMasqBackend != backendIPTables {
		return nil, errDecline
	}
	conf.IsGateway = conf.IsGateway || conf.IsDefaultGateway
	return &conf, nil
}

// parseBridge declines where the bridge plugin would not call the host-local
// that is done here.
func (e *Exec) parseBridge(c *call) (*bridgeConf, error) {
	if !e.isHostLocalOurs(c) {
		return nil, errDecline
	}
	return parseBridge(c)
}

func (e *Exec) bridge(ctx context.Context, c *call) ([]byte, error) {
	conf, err := e.parseBridge(c)
	if err != nil {
		return nil, err
	}
	if c.command == "DEL" {
		return nil, e.bridgeDel(ctx, c, conf)
	}
	var steps undo.Stack
	res, err := e.bridgeAdd(ctx, c, conf, &steps)
	if err != nil {
		return nil, errors.Join(err, steps.Run(ctx))
	}
	steps.Discard()
	return encodeResult(res, conf.CNIVersion)
}

func (e *Exec) bridgeAdd(ctx context.Context, c *call, conf *bridgeConf, steps *undo.Stack) (*current.Result, error) {
	netns, err := os.Open(c.netns)
	if err != nil {
		return nil, fmt.Errorf("open netns: %w", err)
	}
	defer netns.Close()
	res, err := e.allocate(c)
	if err != nil {
		return nil, err
	}
	steps.Push(func(context.Context) error { return e.release(c) })
	defaultRoutes(conf, res)
	// The packet filter may be another process: it works beside the links.
	masqueraded := make(chan error, 1)
	if conf.IPMasq {
		go func() { masqueraded <- e.masquerade(ctx, c, conf, res.IPs) }()
		steps.Push(func(ctx context.Context) error { return e.unmasquerade(ctx, c, conf, addresses(res)) })
	} else {
		masqueraded <- nil
	}
	err = e.connect(ctx, c, conf, netns, res, steps)
	if filterErr := <-masqueraded; err == nil {
		err = filterErr
	}
	if err != nil {
		return nil, err
	}
	if conf.DNS.Nameservers != nil || conf.DNS.Search != nil || conf.DNS.Options != nil || conf.DNS.Domain != "" {
		res.DNS = conf.DNS
	}
	return res, nil
}

// connect makes the links, gives them their addresses and completes res.
func (e *Exec) connect(ctx context.Context, c *call, conf *bridgeConf, netns *os.File, res *current.Result, steps *undo.Stack) error {
	br, err := e.ensureBridge(conf)
	if err != nil {
		return err
	}
	hostName, err := addVeth(c, conf, br, netns)
	if errors.Is(err, errTaken) && e.reaper.wait(ctx) == nil { // a DEL of the same pod
		hostName, err = addVeth(c, conf, br, netns)
	}
	if err != nil {
		return err
	}
	steps.Push(func(context.Context) error { return ignoreMissing(ip.DelLinkByName(hostName)) })
	res.Interfaces = []*current.Interface{{Name: conf.Bridge}, {Name: hostName}, {Name: c.ifName, Sandbox: c.netns}}
	for _, i := range res.IPs {
		i.Interface = current.Int(2)
	}
	if err := InNetNS(netns, func() error { return configure(c.ifName, res) }); err != nil {
		return err
	}
	if conf.IsGateway {
		if err := e.ensureGateways(br, res.IPs); err != nil {
			return err
		}
	}
	host, err := awaitUp(hostName)
	if err != nil {
		return err
	}
	res.Interfaces[1].Mac = host.Attrs().HardwareAddr.String()
	if br, err = bridgeByName(conf.Bridge); err != nil {
		return err
	}
	res.Interfaces[0].Mac = br.Attrs().HardwareAddr.String()
	return nil
}

// configure sets the pod's end of the link up, in its namespace.
func configure(ifName string, res *current.Result) error {
	link, err := netlink.LinkByName(ifName)
	if err != nil {
		return fmt.Errorf("look up %q: %w", ifName, err)
	}
	res.Interfaces[2].Mac = link.Attrs().HardwareAddr.String()
	// Without duplicate address detection an IPv6 address is usable at once.
	_, _ = sysctl.Sysctl(fmt.Sprintf("net/ipv6/conf/%s/accept_dad", ifName), "0") // absent without IPv6
	_, _ = sysctl.Sysctl(fmt.Sprintf("net/ipv4/conf/%s/arp_notify", ifName), "1") // best effort, as in the plugin
	return ipam.ConfigureIface(ifName, res)
}

// podTxQLen is the kernel's default for the end that is made first.
const podTxQLen = 1000

// errTaken says that the pod has an interface of that name.
var errTaken = errors.New("container veth name already exists")

// addVeth makes the pair in one request: the host's end up and in the bridge,
// the other end in the pod's namespace.
func addVeth(c *call, conf *bridgeConf, br *netlink.Bridge, netns *os.File) (string, error) {
	const tries = 10
	for range tries {
		name, err := ip.RandomVethName()
		if err != nil {
			return "", err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.MasterIndex, attrs.Flags = name, conf.MTU, br.Index, net.FlagUp
		attrs.TxQLen = 0 // what the plugin, which makes the pod's end first, comes to
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: c.ifName, PeerTxQLen: podTxQLen, PeerNamespace: netlink.NsFd(int(netns.Fd()))}
		err = netlink.LinkAdd(veth)
		if errors.Is(err, fs.ErrExist) {
			if _, taken := netlink.LinkByName(name); taken == nil {
				continue
			}
			return "", fmt.Errorf("%w: %q", errTaken, c.ifName)
		}
		if err != nil {
			return "", fmt.Errorf("make veth pair: %w", err)
		}
		return name, finishVeth(name, conf)
	}
	return "", errors.New("find a unique veth name: none in ten tries")
}

func finishVeth(name string, conf *bridgeConf) error {
	_, _ = sysctl.Sysctl(fmt.Sprintf("net/ipv6/conf/%s/accept_ra", name), "0") // absent without IPv6
	if !conf.Hairpin && !conf.PortIsolation {
		return nil // how the kernel makes a port
	}
	host, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if conf.Hairpin {
		if err := netlink.LinkSetHairpin(host, true); err != nil {
			return fmt.Errorf("set hairpin mode of %s: %w", name, err)
		}
	}
	if conf.PortIsolation {
		if err := netlink.LinkSetIsolated(host, true); err != nil {
			return fmt.Errorf("isolate %s: %w", name, err)
		}
	}
	return nil
}

// awaitUp waits until the bridge forwards for the port. The kernel tells the
// carrier's change from a work queue, within a millisecond as a rule.
func awaitUp(name string) (netlink.Link, error) {
	const patience = 2550 * time.Millisecond // as long as the plugin has
	deadline := time.Now().Add(patience)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil, err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return link, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("bridge port in error state: %s", link.Attrs().OperState)
		}
		time.Sleep(pause)
	}
}

// defaultRoutes fills in each address's gateway and, for isDefaultGateway, the
// route through it.
func defaultRoutes(conf *bridgeConf, res *current.Result) {
	for _, i := range res.IPs {
		if i.Gateway == nil && conf.IsGateway {
			i.Gateway = ip.NextIP(i.Address.IP.Mask(i.Address.Mask))
		}
		if !conf.IsDefaultGateway {
			continue
		}
		all := net.IPNet{IP: net.IPv6zero, Mask: net.IPMask(net.IPv6zero)}
		if i.Address.IP.To4() != nil {
			all = net.IPNet{IP: net.IPv4zero, Mask: net.IPMask(net.IPv4zero)}
		}
		has := false
		for _, r := range res.Routes {
			has = has || r.GW != nil && r.Dst.String() == all.String()
		}
		if !has {
			res.Routes = append(res.Routes, &types.Route{Dst: all, GW: i.Gateway})
		}
	}
}

func addresses(res *current.Result) []*net.IPNet {
	var out []*net.IPNet
	for _, i := range res.IPs {
		out = append(out, &i.Address)
	}
	return out
}

func ignoreMissing(err error) error {
	if errors.Is(err, ip.ErrLinkNotFound) {
		return nil
	}
	return err
}

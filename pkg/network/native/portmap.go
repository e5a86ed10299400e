package native

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/containernetworking/plugins/pkg/utils/sysctl"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// portmapConf has the options of the portmap plugin that are implemented here.
type portmapConf struct {
	common
	Backend       *string `json:"backend"`
	SNAT          *bool   `json:"snat"`
	RuntimeConfig struct {
		Ports []portEntry     `json:"portMappings"`
		DNS   json.RawMessage `json:"dns"` // which the plugin does not look at
	} `json:"runtimeConfig"`
}

type portEntry struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

func (p *portmapConf) snat() bool { return p.SNAT == nil || *p.SNAT }

func parsePortmap(c *call) (*portmapConf, error) {
	var conf portmapConf
	if err := c.decode(&conf); err != nil {
		return nil, err
	}
	if !conf.versionKnown() || conf.Backend != nil && *conf.Backend != backendNFT && *conf.Backend != backendIPTables {
		return nil, errDecline
	}
	for _, p := range conf.RuntimeConfig.Ports {
		if p.HostPort <= 0 || p.HostPort > 65535 || p.ContainerPort <= 0 || p.ContainerPort > 65535 ||
			protocols[p.Protocol] == 0 || p.HostIP != "" && net.ParseIP(p.HostIP) == nil {
			return nil, errDecline
		}
	}
	return &conf, nil
}

// protocols are those with ports.
var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

func (e *Exec) portmap(ctx context.Context, c *call) ([]byte, error) {
	conf, err := parsePortmap(c)
	if err != nil {
		return nil, err
	}
	if c.command == "DEL" {
		if len(conf.RuntimeConfig.Ports) == 0 {
			return nil, nil
		}
		return nil, e.unforward(ctx, c, conf)
	}
	prev, err := conf.prevResult()
	if err != nil || prev == nil {
		return nil, errDecline
	}
	if len(conf.RuntimeConfig.Ports) > 0 {
		if err := e.forward(ctx, c, conf, prev); err != nil {
			return nil, err
		}
	}
	return encodeResult(prev, conf.CNIVersion)
}

func (e *Exec) forward(ctx context.Context, c *call, conf *portmapConf, prev *current.Result) error {
	for _, pod := range podAddresses(prev, c.ifName) {
		var err error
		if e.filter.backend(conf.Backend) == backendNFT {
			err = e.filter.addPorts(c.container, conf, pod.IP)
		} else {
			err = e.filter.addPortsIPTables(ctx, c.container, conf, pod)
		}
		if err != nil {
			return fmt.Errorf("publish ports: %w", err)
		}
		if err := forgetUDP(conf.RuntimeConfig.Ports, pod.IP); err != nil {
			return err
		}
		if conf.snat() && pod.IP.To4() != nil {
			if err := routeLocalnet(pod.IP); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *Exec) unforward(ctx context.Context, c *call, conf *portmapConf) error {
	var err error
	if e.filter.backend(conf.Backend) == backendNFT {
		err = e.filter.delPorts(c.container)
	} else {
		err = e.filter.removeChain(ctx, dnatChain(conf.Name, c.container), []string{hostportDNAT}, bothFamilies)
	}
	if err != nil {
		return fmt.Errorf("unpublish ports: %w", err)
	}
	return nil
}

// podAddresses returns the pod's first address of each family.
func podAddresses(res *current.Result, ifName string) []net.IPNet {
	var v4, v6, out []net.IPNet
	for _, i := range res.IPs {
		if n := i.Interface; n != nil && *n >= 0 && *n < len(res.Interfaces) {
			if at := res.Interfaces[*n]; at.Name != ifName || at.Sandbox == "" {
				continue
			}
		}
		if i.Address.IP.To4() != nil {
			v4 = append(v4, i.Address)
		} else {
			v6 = append(v6, i.Address)
		}
	}
	out = append(out, v4[:min(1, len(v4))]...)
	return append(out, v6[:min(1, len(v6))]...)
}

// forgetUDP drops what the kernel remembers of datagrams to the ports: it would
// send the next ones where the last ones went.
func forgetUDP(ports []portEntry, pod net.IP) error {
	family := netlink.InetFamily(unix.AF_INET)
	if pod.To4() == nil {
		family = unix.AF_INET6
	}
	for _, p := range ports {
		if p.Protocol == "udp" {
			// Only old flows are concerned, and the plugin goes on too.
			_ = utils.DeleteConntrackEntriesForDstPort(uint16(p.HostPort), utils.PROTOCOL_UDP, family)
		}
	}
	return nil
}

// routeLocalnet lets packets from 127.0.0.1 reach the pod's interface.
func routeLocalnet(pod net.IP) error {
	routes, err := netlink.RouteGet(pod)
	if err != nil || len(routes) == 0 {
		return nil // as the plugin does: no route, nothing to allow
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return nil
	}
	name := "net/ipv4/conf/" + link.Attrs().Name + "/route_localnet"
	if now, err := sysctl.Sysctl(name); err == nil && now == "1" {
		return nil
	}
	if _, err := sysctl.Sysctl(name, "1"); err != nil {
		return fmt.Errorf("enable route_localnet: %w", err)
	}
	return nil
}

// hostAddress returns an entry's address of the family, or nil for all; use is
// false where the entry is for the other family.
func (p *portEntry) hostAddress(v6 bool) (addr net.IP, use bool) {
	if p.HostIP == "" {
		return nil, true
	}
	addr = net.ParseIP(p.HostIP)
	if (addr.To4() == nil) != v6 {
		return nil, false
	}
	if addr.IsUnspecified() {
		return nil, true
	}
	return addr, true
}

func dnatChain(network, container string) string {
	return utils.MustFormatChainNameWithPrefix(network, container, "DN-")
}

func joinHostPort(addr net.IP, port int) string {
	if addr.To4() == nil {
		return fmt.Sprintf("[%s]:%d", addr, port)
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

// hasLine says whether a listing has the line.
func hasLine(listing []string, line string) bool {
	for _, l := range listing {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}

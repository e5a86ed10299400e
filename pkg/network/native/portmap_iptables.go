package native

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// The chains of the plugin's iptables backend.
const (
	hostportDNAT    = "CNI-HOSTPORT-DNAT"
	hostportSetMark = "CNI-HOSTPORT-SETMARK"
	hostportMasq    = "CNI-HOSTPORT-MASQ"
)

// sharedLine is a rule that all pods share: how it is listed and how it is
// made.
type sharedLine struct{ listed, make string }

var sharedRules = []sharedLine{
	{"-A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000", ""},
	{"-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE", ""},
	{
		"-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ",
		"-I POSTROUTING 1 -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ",
	},
	{"-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT", ""},
	{"-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT", ""},
}

// addPortsIPTables makes the pod's chain and what leads to it.
func (f *filter) addPortsIPTables(ctx context.Context, container string, conf *portmapConf, pod net.IPNet) error {
	v6 := pod.IP.To4() == nil
	if iptablesIsNFT() && f.hasShared(v6, conf.snat()) {
		return iptablesRestore(ctx, v6, podScript(container, conf, pod))
	}
	f.shared.Lock()
	defer f.shared.Unlock()
	listing, err := iptablesSave(ctx, v6)
	if err != nil {
		return err
	}
	script := sharedScript(listing, conf.snat())
	return iptablesRestore(ctx, v6, append(script, podScript(container, conf, pod)...))
}

// sharedScript makes what the listing lacks.
func sharedScript(listing []string, snat bool) []string {
	var script []string
	for _, chain := range []string{hostportSetMark, hostportMasq, hostportDNAT} {
		if !snat && chain != hostportDNAT {
			continue
		}
		if !slices.ContainsFunc(listing, func(l string) bool { return strings.HasPrefix(l, ":"+chain+" ") }) {
			script = append(script, ":"+chain+" - [0:0]")
		}
	}
	for _, rule := range sharedRules {
		if !snat && !strings.HasSuffix(rule.listed, hostportDNAT) || hasLine(listing, rule.listed) {
			continue
		}
		if rule.make == "" {
			rule.make = rule.listed
		}
		script = append(script, rule.make)
	}
	return script
}

// podScript makes one pod's chain: for each port, mark what must come back
// through the host, then rewrite the destination.
func podScript(container string, conf *portmapConf, pod net.IPNet) []string {
	v6 := pod.IP.To4() == nil
	chain := dnatChain(conf.Name, container)
	script := []string{":" + chain + " - [0:0]"}
	byProtocol := map[string][]string{}
	for i := range conf.RuntimeConfig.Ports {
		p := &conf.RuntimeConfig.Ports[i]
		byProtocol[p.Protocol] = append(byProtocol[p.Protocol], strconv.Itoa(p.HostPort))
		host, use := p.hostAddress(v6)
		if !use {
			continue
		}
		match := fmt.Sprintf("-A %s -p %s --dport %d", chain, p.Protocol, p.HostPort)
		if host != nil {
			match += " -d " + p.HostIP
		}
		if conf.snat() {
			script = append(script, fmt.Sprintf("%s -s %s -j %s", match, pod.String(), hostportSetMark))
			if !v6 {
				script = append(script, fmt.Sprintf("%s -s 127.0.0.1 -j %s", match, hostportSetMark))
			}
		}
		script = append(script, fmt.Sprintf("%s -j DNAT --to-destination %s", match, joinHostPort(pod.IP, p.ContainerPort)))
	}
	return append(script, entryScript(chain, dnatComment(conf.Name, container), byProtocol)...)
}

// entryScript leads the ports to the chain, fifteen at a time: as many as
// multiport takes.
func entryScript(chain, comment string, byProtocol map[string][]string) []string {
	const most = 15
	var script []string
	for _, protocol := range slices.Sorted(maps.Keys(byProtocol)) {
		for ports := range slices.Chunk(byProtocol[protocol], most) {
			script = append(script, fmt.Sprintf("-A %s -m comment --comment %s -m multiport -p %s --destination-ports %s -j %s",
				hostportDNAT, quoted(comment), protocol, strings.Join(ports, ","), chain))
		}
	}
	return script
}

// dnatComment says whose rules they are, in iptables's 255 bytes.
func dnatComment(network, container string) string {
	const most = 255
	c := fmt.Sprintf(`dnat name: "%s" id: "%s"`, network, container)
	if len(c) > most {
		c = c[:most-2] + "..."
	}
	return c
}

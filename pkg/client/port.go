package client

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// maxPortRange bounds how many ports one -p may publish.
const maxPortRange = 1024

// ParsePort reads what -p takes: [[HOSTIP:]HOSTPORT:]PORT[/PROTOCOL], where the
// ports may be ranges of one length. Without a host port, the host's is the
// same as the container's.
func ParsePort(s string) ([]*runtimeapi.PortMapping, error) {
	bad := func(why string) ([]*runtimeapi.PortMapping, error) {
		return nil, fail(errs.Invalid, "port %q: %s; write [[HOSTIP:]HOSTPORT:]PORT[/tcp|udp|sctp], as in 8080:80", s, why)
	}
	rest, proto, hasProto := strings.Cut(s, "/")
	if !hasProto {
		proto = "tcp"
	}
	protocol, ok := runtimeapi.Protocol_value[strings.ToUpper(proto)]
	if !ok {
		return bad("there is no protocol " + strconv.Quote(proto))
	}
	hostIP, hostPort, port, why := cutPort(rest)
	if why != "" {
		return bad(why)
	}
	first, last, ok := portRange(port)
	if !ok {
		return bad(strconv.Quote(port) + " is no port from 1 to 65535")
	}
	hostFirst, hostLast, ok := portRange(hostPort)
	if !ok {
		return bad(strconv.Quote(hostPort) + " is no port from 1 to 65535")
	}
	if last-first != hostLast-hostFirst || last-first >= maxPortRange {
		return bad("the two ranges differ in length, or are too long")
	}
	var all []*runtimeapi.PortMapping
	for i := range last - first + 1 {
		all = append(all, &runtimeapi.PortMapping{
			Protocol:      runtimeapi.Protocol(protocol),
			ContainerPort: first + i,
			HostPort:      hostFirst + i,
			HostIp:        hostIP,
		})
	}
	return all, nil
}

// cutPort takes HOSTIP:HOSTPORT:PORT apart; an IPv6 address stands in brackets.
func cutPort(s string) (hostIP, hostPort, port, why string) {
	if end := strings.LastIndex(s, "]"); strings.HasPrefix(s, "[") && end > 0 {
		hostIP, s = s[1:end], strings.TrimPrefix(s[end+1:], ":")
		hostPort, port, _ = strings.Cut(s, ":")
	} else {
		parts := strings.Split(s, ":")
		switch len(parts) {
		case 1:
			return "", s, s, ""
		case 2:
			return "", parts[0], parts[1], ""
		case 3:
			hostIP, hostPort, port = parts[0], parts[1], parts[2]
		default:
			return "", "", "", "it has too many parts (an IPv6 address stands in brackets)"
		}
	}
	if addr, err := netip.ParseAddr(hostIP); err != nil || addr.Zone() != "" {
		return "", "", "", strconv.Quote(hostIP) + " is no IP address"
	}
	if hostPort == "" {
		hostPort = port
	}
	return hostIP, hostPort, port, ""
}

func portRange(s string) (first, last int32, ok bool) {
	a, b, isRange := strings.Cut(s, "-")
	if !isRange {
		b = a
	}
	from, errFrom := strconv.ParseUint(a, 10, 16)
	to, errTo := strconv.ParseUint(b, 10, 16)
	return int32(from), int32(to), errFrom == nil && errTo == nil && from > 0 && from <= to
}

// FormatPorts writes port mappings as lists show them.
func FormatPorts(ports []*runtimeapi.PortMapping) string {
	var all []string
	for _, p := range ports {
		host := p.HostIp
		if host == "" {
			host = "0.0.0.0"
		}
		all = append(all, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(host, strconv.Itoa(int(p.HostPort))), p.ContainerPort, strings.ToLower(p.Protocol.String())))
	}
	return strings.Join(all, ", ")
}

// Package hostport knows which pod has which port of the host. The packet filter
// would take the same port for a second pod, or one that a process of the host
// listens on, and let one of them win in silence: here the second is refused.
//
// A Table lives in memory; its owner fills it from its records.
package hostport

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// Port is a port of the host. Its form is that of the portMappings capability
// of CNI, without what is the pod's.
type Port struct {
	Port     int32  `json:"hostPort"`
	Protocol string `json:"protocol"`         // tcp, udp or sctp
	Address  string `json:"hostIP,omitempty"` // empty means every one of the host
}

func (p Port) String() string {
	if p.Address == "" {
		return fmt.Sprintf("host port %d/%s", p.Port, p.Protocol)
	}
	return fmt.Sprintf("host port %d/%s of %s", p.Port, p.Protocol, p.Address)
}

// Holder is a pod with ports.
type Holder struct {
	Name  string // in words
	Ports []Port
	// Alive says whether packets can still reach the pod. It must be quick.
	Alive func() bool
}

// Table is who has which port, by the pod's id. The zero value is empty, and
// its methods may be called concurrently.
type Table struct {
	mu   sync.Mutex
	held map[string]Holder
}

// Claim gives the ports to the pod. The error is errs.Conflict, and nothing has
// changed, where a living pod has one of them.
func (t *Table) Claim(id string, h Holder) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other, o := range t.held {
		if other == id {
			continue
		}
		if p, both := common(h.Ports, o.Ports); both && o.Alive() {
			return fmt.Errorf("%s is taken by pod %s: %w", p, o.Name, errs.Conflict)
		}
	}
	t.setLocked(id, h)
	return nil
}

// Hold is Claim without asking, for what was granted before.
func (t *Table) Hold(id string, h Holder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(id, h)
}

func (t *Table) setLocked(id string, h Holder) {
	if len(h.Ports) == 0 {
		return
	}
	if t.held == nil {
		t.held = map[string]Holder{}
	}
	t.held[id] = h
}

// Release gives the pod's ports back, if it has any.
func (t *Table) Release(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, id)
}

func common(wanted, held []Port) (Port, bool) {
	for _, w := range wanted {
		for _, h := range held {
			if w.overlaps(h) {
				return w, true
			}
		}
	}
	return Port{}, false
}

func (p Port) overlaps(q Port) bool {
	if p.Port != q.Port || p.Protocol != q.Protocol {
		return false
	}
	for _, a := range p.addresses() {
		for _, b := range q.addresses() {
			if a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

// addresses are what the port is bound to; an unspecified one is all of its
// family.
func (p Port) addresses() []netip.Addr {
	if p.Address == "" {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	addr, err := netip.ParseAddr(p.Address)
	if err != nil {
		return nil
	}
	return []netip.Addr{addr.Unmap()}
}

// Free returns errs.Conflict where a process of the host has the port. IPv6 is
// looked at where v6 says that pods have it.
func Free(p Port, v6 bool) error {
	for _, addr := range p.addresses() {
		if addr.Is6() && !v6 {
			continue
		}
		if err := bind(p, addr); errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("%s: port is already in use by a process of this host: %w", p, errs.Conflict)
		}
	}
	return nil
}

// sockets are the type and the protocol of each protocol's sockets.
var sockets = map[string][2]int{
	"tcp":  {unix.SOCK_STREAM, unix.IPPROTO_TCP},
	"udp":  {unix.SOCK_DGRAM, unix.IPPROTO_UDP},
	"sctp": {unix.SOCK_STREAM, unix.IPPROTO_SCTP},
}

// bind tries the port for a moment. That it cannot be tried, as with an address
// that the host does not have yet, says nothing of it.
func bind(p Port, addr netip.Addr) error {
	domain, sockaddr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(p.Port)})
	if addr.Is6() {
		domain, sockaddr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(p.Port), Addr: addr.As16()}
	} else {
		sockaddr.(*unix.SockaddrInet4).Addr = addr.As4()
	}
	fd, err := unix.Socket(domain, sockets[p.Protocol][0]|unix.SOCK_CLOEXEC, sockets[p.Protocol][1])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if addr.Is6() { // IPv4 has a turn of its own
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if p.Protocol == "tcp" { // else connections that have ended would count for two minutes
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, sockaddr)
}

package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/containernetworking/plugins/pkg/ip"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Deleting a veth pair waits several times for all CPUs to pass through the
// kernel's RCU: 15-45 ms with the lock of all network configuration held. So
// DEL takes only what can be seen from elsewhere, the addresses, and leaves the
// pair to a reaper, which deletes all that wait in one request. A pair that is
// never reaped, because the process died, goes with the pod's namespace.

// reapGroup marks the interfaces that one request deletes. It is arbitrary; an
// interface of another's in it would have been put there on purpose.
const reapGroup = 0x42657274

// reapLimit is how many may wait; one more is deleted at once.
const reapLimit = 256

// reaper deletes host ends of veth pairs.
type reaper struct {
	mu      sync.Mutex
	waiting int           // marked since the last round began
	idle    chan struct{} // closed when nothing waits; nil while idle
}

// add marks the interface and has it deleted soon. It reports whether it did.
func (r *reaper) add(link netlink.Link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == reapLimit || netlink.LinkSetGroup(link, reapGroup) != nil {
		return false
	}
	r.waiting++
	if r.idle == nil {
		r.idle = make(chan struct{})
		go r.run()
	}
	return true
}

// run deletes until nothing waits. Whoever calls wait owns it.
func (r *reaper) run() {
	for {
		r.mu.Lock()
		if r.waiting == 0 {
			close(r.idle)
			r.idle = nil
			r.mu.Unlock()
			return
		}
		r.waiting = 0
		r.mu.Unlock()
		if err := deleteGroup(reapGroup); err != nil && !errors.Is(err, syscall.ENODEV) {
			klog.Background().Error(err, "Deleting interfaces of removed pods")
		}
	}
}

// wait returns when nothing waits, or with the context's error.
func (r *reaper) wait(ctx context.Context) error {
	r.mu.Lock()
	idle := r.idle
	r.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deleteGroup deletes all interfaces of a group, which the netlink library has
// no function for.
func deleteGroup(group uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// retire takes the pod's addresses away and leaves the pair to the reaper, or
// deletes it where that is not safe.
func (e *Exec) retire(netns *os.File, ifName string, bridge string) error {
	var pod netlink.Link
	err := InNetNS(netns, func() error {
		var err error
		if pod, err = netlink.LinkByName(ifName); errors.As(err, &netlink.LinkNotFoundError{}) {
			pod = nil
			return nil
		}
		return err
	})
	if err != nil || pod == nil {
		return err
	}
	host, ok := hostEnd(pod, bridge)
	if !ok {
		return InNetNS(netns, func() error { return ignoreMissing(ip.DelLinkByName(ifName)) })
	}
	if err := InNetNS(netns, func() error { return removeAddresses(pod) }); err != nil {
		return err
	}
	if e.reaper.add(host) {
		return nil
	}
	return InNetNS(netns, func() error { return ignoreMissing(ip.DelLinkByName(ifName)) })
}

// hostEnd returns the other end of a pod's veth, if it is a port of the bridge.
func hostEnd(pod netlink.Link, bridge string) (netlink.Link, bool) {
	if pod.Type() != "veth" {
		return nil, false
	}
	host, err := netlink.LinkByIndex(pod.Attrs().ParentIndex)
	if err != nil || host.Type() != "veth" || host.Attrs().ParentIndex != pod.Attrs().Index {
		return nil, false
	}
	br, err := bridgeByName(bridge)
	return host, err == nil && host.Attrs().MasterIndex == br.Index
}

func removeAddresses(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	return nil
}

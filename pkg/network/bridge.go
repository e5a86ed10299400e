package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/network/forward"
)

// bridge is the built-in network's, which all its pods share.
type bridge struct {
	name  string
	mtu   int
	v6    bool   // pods have IPv6 too
	owner string // whose what is made here is

	mu      sync.Mutex // held while the host is set up: every Attach needs that
	allowed bool       // the host forwards for it
}

// owner tells what this daemon has put into the kernel from what another has.
func owner(dir string) string {
	const most = 200 // less than the kernel takes in a comment and in an alias
	return "berth " + dir[max(0, len(dir)-most):]
}

// ensure makes the bridge where it is not there, and has the host forward for
// it.
func (b *bridge) ensure(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.make(); err != nil {
		return err
	}
	if b.allowed {
		return nil
	}
	if err := forward.Allow(ctx, b.name, b.owner, b.v6); err != nil {
		// Most hosts forward without these rules.
		klog.FromContext(ctx).Error(err, "Pods may not reach beyond this host", "bridge", b.name)
	}
	b.allowed = true
	return nil
}

// remove takes back what ensure has done. A bridge that something is a port of
// stays, and so does one that was there before: it may be the way to the host.
func (b *bridge) remove(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = false
	return errors.Join(b.removeLink(), forward.Remove(ctx, b.name, b.owner))
}

func (b *bridge) removeLink() error {
	link, err := netlink.LinkByName(b.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", b.name, err)
	}
	if link.Attrs().Alias != b.owner {
		return nil
	}
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list ports of %s: %w", b.name, err)
	}
	for _, port := range all {
		if port.Attrs().MasterIndex == link.Attrs().Index {
			return nil
		}
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", b.name, err)
	}
	return nil
}

// make makes the bridge where it is not there, with its owner as the alias: that
// lives as long as the bridge does, which a record would not. It is made without duplicate address
// detection: the host could not reach the pods' IPv6 addresses for the second
// that it takes. The rest is the bridge plugin's work.
func (b *bridge) make() error {
	if _, err := net.InterfaceByName(b.name); err == nil {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = b.name, b.mtu
	link := &netlink.Bridge{LinkAttrs: attrs}
	err := netlink.LinkAdd(link)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = netlink.LinkSetAlias(link, b.owner)
	}
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", b.name, err)
	}
	err = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", b.name, "accept_dad"), []byte("0"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a host without IPv6
		return fmt.Errorf("add bridge %s: %w", b.name, err)
	}
	return nil
}

// Package bridge makes the bridge of the built-in network, has the host forward
// for it, and takes it away again. Addresses, masquerade and ports are the
// plugins' work, which it describes to them.
//
// All state is in the kernel, under the name of its owner, who may not be the
// only one to use the bridge. A Bridge's lock is held while the host is set up.
package bridge

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
)

// Bridge is one that pods share. Name and Dir are required; its methods may be
// called concurrently.
type Bridge struct {
	Name string
	MTU  int
	V6   bool   // pods have IPv6 too
	Dir  string // the owner's, which tells it from others

	mu      sync.Mutex // held while the host is set up: every Attach needs that
	allowed bool       // the host forwards for it
}

// owner tells what this daemon has put into the kernel from what another has.
func (b *Bridge) owner() string {
	const most = 200 // less than the kernel takes in a comment and in an alias
	return "berth " + b.Dir[max(0, len(b.Dir)-most):]
}

// Ensure makes the bridge where it is not there, and has the host forward for
// it.
func (b *Bridge) Ensure(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.make(); err != nil {
		return err
	}
	if b.allowed {
		return nil
	}
	if err := allow(ctx, b.Name, b.owner(), b.V6); err != nil {
		// Most hosts forward without these rules.
		klog.FromContext(ctx).Error(err, "Pods may not reach beyond this host", "bridge", b.Name)
	}
	b.allowed = true
	return nil
}

// Remove takes back what Ensure has done. A bridge that something is a port of
// stays, and so does one that was there before: it may be the way to the host.
func (b *Bridge) Remove(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = false
	return errors.Join(b.removeLink(), disallow(ctx, b.Name, b.owner()))
}

func (b *Bridge) removeLink() error {
	link, err := netlink.LinkByName(b.Name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", b.Name, err)
	}
	if link.Attrs().Alias != b.owner() {
		return nil
	}
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list ports of %s: %w", b.Name, err)
	}
	for _, port := range all {
		if port.Attrs().MasterIndex == link.Attrs().Index {
			return nil
		}
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", b.Name, err)
	}
	return nil
}

// make makes the bridge where it is not there, with its owner as the alias: that
// lives as long as the bridge does, which a record would not. It is made without
// duplicate address detection: the host could not reach the pods' IPv6 addresses
// for the second that it takes. The rest is the bridge plugin's work.
func (b *Bridge) make() error {
	if _, err := net.InterfaceByName(b.Name); err == nil {
		return nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = b.Name, b.MTU
	link := &netlink.Bridge{LinkAttrs: attrs}
	err := netlink.LinkAdd(link)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = netlink.LinkSetAlias(link, b.owner())
	}
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", b.Name, err)
	}
	err = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", b.Name, "accept_dad"), []byte("0"), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a host without IPv6
		return fmt.Errorf("add bridge %s: %w", b.Name, err)
	}
	return nil
}

package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ip"
	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/google/nftables"
)

// The packet filters that the plugins know.
const (
	backendNFT      = "nftables"
	backendIPTables = "iptables"
)

// filter is what is known of the host's packet filter.
type filter struct {
	mu sync.Mutex // one transaction at a time: each looks before it adds
	// conn stays open: closing an nftables socket waits for the RCU work of all
	// earlier deletions (nft_rcv_nl_event, Linux 5.0 and later), 4-13 ms.
	conn *nftables.Conn
	open func(...nftables.ConnOption) (*nftables.Conn, error) // nil: nftables.New

	shared sync.Mutex // held while iptables rules for all pods are made

	// choice is the plugins' own where the configuration has none:
	// iptables, unless only nftables works. Asking starts processes, so once.
	once   sync.Once
	choice string
}

func (f *filter) backend(configured *string) string {
	if configured != nil {
		return *configured
	}
	f.once.Do(func() {
		f.choice = backendIPTables
		if !utils.SupportsIPTables() && utils.SupportsNFTables() {
			f.choice = backendNFT
		}
	})
	return f.choice
}

// transact runs change, which looks and queues changes, and then makes them all
// at once. It tries again where that fails: a listing is interrupted by anyone
// else's change.
func (f *filter) transact(change func(*nftables.Conn) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.tryLocked(change)
	if err != nil {
		err = f.tryLocked(change)
	}
	return err
}

func (f *filter) tryLocked(change func(*nftables.Conn) error) error {
	if f.conn == nil {
		open := f.open
		if open == nil {
			open = nftables.New
		}
		conn, err := open(nftables.AsLasting())
		if err != nil {
			return err
		}
		f.conn = conn
	}
	err := change(f.conn)
	if err == nil {
		err = f.conn.Flush()
	}
	if err != nil { // what is queued goes with the connection
		_ = f.conn.CloseLasting() // what matters is err
		f.conn = nil
	}
	return err
}

// remove is transact for what takes rules out. Where the kernel has no nftables
// there are none: pods have iptables rules there, or could not be attached.
func (f *filter) remove(change func(*nftables.Conn) error) error {
	err := f.transact(change)
	if err != nil && f.missing() {
		return nil
	}
	return err
}

// missing says whether the kernel has no nftables: nfnetlink answers EINVAL for
// it then, or there is no nfnetlink. The errors of other requests than this
// have lost their number.
func (f *filter) missing() bool {
	err := f.transact(func(conn *nftables.Conn) error {
		_, err := conn.ListTables()
		return err
	})
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// close gives up the connection.
func (f *filter) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		return nil
	}
	err := f.conn.CloseLasting()
	f.conn = nil
	return err
}

// masquerade lets the pod's traffic leave its subnet with the host's address.
func (e *Exec) masquerade(ctx context.Context, c *call, conf *bridgeConf, ips []*current.IPConfig) error {
	var nets []*net.IPNet
	for _, i := range ips {
		nets = append(nets, &i.Address)
	}
	backend := e.filter.backend(conf.IPMasqBackend)
	var err error
	if backend == backendNFT {
		err = e.filter.addMasquerade(conf.Name, c.ifName, c.container, nets)
	} else {
		err = iptablesMasquerade(ctx, conf.Name, c.container, nets)
	}
	if err != nil { // the plugin's own code knows more ways
		err = ip.SetupIPMasqForNetworks(&backend, nets, conf.Name, c.ifName, c.container)
	}
	if err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}

func (e *Exec) unmasquerade(ctx context.Context, c *call, conf *bridgeConf, nets []*net.IPNet) error {
	if err := e.filter.delMasquerade(conf.Name, c.ifName, c.container); err != nil {
		return fmt.Errorf("stop masquerading: %w", err)
	}
	if e.filter.backend(conf.IPMasqBackend) == backendNFT {
		return nil
	}
	if err := e.filter.removeChain(ctx, utils.FormatChainName(conf.Name, c.container), []string{"POSTROUTING"}, families(nets)); err == nil {
		return nil
	}
	if err := ip.TeardownIPMasqForNetworks(nets, conf.Name, c.ifName, c.container); err != nil {
		return fmt.Errorf("stop masquerading: %w", err)
	}
	return nil
}

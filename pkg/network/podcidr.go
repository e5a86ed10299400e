package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/network/subnet"
)

const podCIDRFile = "podcidr.json" // in the directory of the records

// podCIDRs are the subnets that the cluster gives to the pods of this node.
type podCIDRs struct {
	Version int `json:"version"`
	subnet.Pair
}

// SetPodCIDR takes the subnets of this node's pods from kubelet. The built-in
// network moves to them as soon as no pod is attached, now or in a later Attach,
// unless the configuration names a subnet. CNI configurations are their authors':
// then the subnets are recorded only, as for an empty text nothing is. The error
// is errs.Invalid for what is not such a text, errs.Conflict for a subnet that
// the host routes elsewhere.
func (s *Service) SetPodCIDR(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	asked, err := subnet.Parse(text)
	if err != nil {
		return err
	}
	wanted := &podCIDRs{recordVersion, asked}
	log := klog.FromContext(ctx).WithValues("podCIDR", wanted.String())
	now := s.builtin.Load()
	follows := now != nil && !s.opts.Builtin.Subnet.IsValid()
	if follows {
		if err := now.moved(s.opts.Builtin, wanted).subnets().Free(now.subnets(), now.Bridge); err != nil {
			return err
		}
	}
	if old := s.wanted.Load(); old == nil || *old != *wanted {
		if err := statefile.WriteDurable(filepath.Join(s.dir, podCIDRFile), wanted); err != nil {
			return fmt.Errorf("record pod CIDR: %w", err)
		}
		s.wanted.Store(wanted)
	}
	if !follows {
		log.Info("Pod CIDR recorded: addresses are the network configuration's matter")
		return nil
	}
	if err := s.renumber(ctx); err != nil {
		return err
	}
	if now := s.builtin.Load(); *now != now.moved(s.opts.Builtin, wanted) {
		log.Info("Pod CIDR recorded: the network moves to it once no pod is attached", "subnets", now.subnets().String())
	}
	return nil
}

// moved returns the network in the wanted subnets, where what was given to Open
// leaves them open.
func (b Builtin) moved(given *Builtin, wanted *podCIDRs) Builtin {
	if wanted == nil || given.Subnet.IsValid() {
		return b
	}
	if wanted.V4.IsValid() {
		b.Subnet = wanted.V4
	}
	if !given.Subnet6.IsValid() {
		b.Subnet6 = wanted.V6
	}
	return b
}

func (b Builtin) subnets() subnet.Pair { return subnet.Pair{V4: b.Subnet, V6: b.Subnet6} }

// renumber moves the built-in network to the wanted subnets where no pod is
// attached. The old bridge goes: it has the old gateway's address.
func (s *Service) renumber(ctx context.Context) error {
	if now := s.builtin.Load(); now == nil || *now == now.moved(s.opts.Builtin, s.wanted.Load()) || len(s.records.All()) > 0 {
		return nil
	}
	s.collecting.Lock()
	defer s.collecting.Unlock()
	now := *s.builtin.Load()
	next := now.moved(s.opts.Builtin, s.wanted.Load())
	if next == now || len(s.records.All()) > 0 {
		return nil
	}
	list, err := next.conflist(s.dir)
	if err == nil {
		err = next.subnets().Free(now.subnets(), now.Bridge)
	}
	if err == nil {
		err = s.Teardown(ctx)
	}
	if err != nil {
		return fmt.Errorf("move network %s to %s: %w", now.Subnet, next.Subnet, err)
	}
	if _, err := net.InterfaceByName(next.Bridge); err == nil {
		return fmt.Errorf("move network %s to %s: others use bridge %s: %w", now.Subnet, next.Subnet, next.Bridge, errs.Conflict)
	}
	state := builtinState{Version: recordVersion, Subnet: next.Subnet, Subnet6: next.Subnet6}
	if err := statefile.WriteDurable(filepath.Join(s.dir, builtinFile), state); err != nil {
		return fmt.Errorf("move network %s to %s: %w", now.Subnet, next.Subnet, err)
	}
	s.bridge.V6 = next.Subnet6.IsValid()
	s.conf.Store(&configuration{networks: []network{{list: list}}})
	s.builtin.Store(&next)
	klog.FromContext(ctx).Info("The network has moved to the pod CIDR", "from", now.subnets().String(), "to", next.subnets().String())
	return nil
}

// loadPodCIDR reads what SetPodCIDR has recorded; nil where that is nothing.
func loadPodCIDR(ctx context.Context, dir string) (*podCIDRs, error) {
	c := &podCIDRs{}
	path := filepath.Join(dir, podCIDRFile)
	err := statefile.Read(path, c)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, statefile.ErrCorrupt): // kubelet says it again
		klog.FromContext(ctx).Error(err, "The recorded pod CIDR cannot be read", "file", path)
		return nil, nil
	}
	return c, err
}

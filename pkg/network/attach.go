package network

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/utils"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
)

// maxItems bounds the addresses and the interfaces of a result.
const maxItems = 256

// Attach sets the pod's loopback interface up and adds the pod to the networks
// in use. The record is on disk before the first plugin runs and again before
// Attach returns. One that fails leaves nothing, unless DEL fails too: then the
// record stays, for Detach or Check. A pod that is attached already is given
// its result again; one whose Attach was cut short is detached first. With the
// built-in network the error is errs.Conflict where a host port is taken.
func (s *Service) Attach(ctx context.Context, req AttachRequest) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	unlock, err := s.pods.Lock(ctx, req.PodID)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if res, ok := s.Result(req.PodID); ok {
		return res, nil
	}
	if err := s.renumber(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "The network stays in its subnet")
	}
	s.collecting.RLock()
	defer s.collecting.RUnlock()
	intent, networks, err := s.plan(&req)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", req.PodID, err)
	}
	if err := s.detachLocked(ctx, req.PodID); err != nil {
		return Result{}, err
	}
	if err := s.prepare(ctx, intent); err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", req.PodID, err)
	}
	done, err := s.add(ctx, intent, networks)
	if err == nil {
		err = s.store(done)
	}
	if err != nil {
		s.undo(ctx, req.PodID)
		return Result{}, fmt.Errorf("attach pod %s: %w", req.PodID, err)
	}
	return done.result(), nil
}

// Loopback sets the loopback interface of a namespace up, for a pod that is
// attached to nothing.
func (s *Service) Loopback(netns string) error { return loopbackUp(netns) }

// prepare does what no plugin does, and writes the intent.
func (s *Service) prepare(ctx context.Context, intent *record) error {
	if s.builtin.Load() != nil {
		if err := s.bridge.Ensure(ctx); err != nil {
			return err
		}
	}
	if err := loopbackUp(intent.NetNS); err != nil {
		return err
	}
	if s.builtin.Load() != nil {
		if err := claimPorts(&s.ports, intent, s.bridge.V6); err != nil {
			return err
		}
	}
	if err := s.store(intent); err != nil {
		s.ports.Release(intent.PodID)
		return err
	}
	return nil
}

// plan describes the attachment before anything is done.
func (s *Service) plan(req *AttachRequest) (*record, []network, error) {
	c := s.conf.Load()
	if err := c.reason(s.opts.ConfDir); err != nil {
		return nil, nil, err
	}
	args, err := req.args()
	if err != nil {
		return nil, nil, err
	}
	caps, err := req.capabilities()
	if err != nil {
		return nil, nil, err
	}
	r := &record{
		Version: recordVersion, PodID: req.PodID, Phase: phaseAdding, NetNS: req.NetNS,
		CreatedAt: time.Now(), Args: args, Capability: caps,
	}
	for i, n := range c.networks {
		if err := findPlugins(s.exec, n, s.opts.BinDirs, caps[bandwidthCapability] != nil); err != nil {
			return nil, nil, err
		}
		r.Attachments = append(r.Attachments, attachment{
			Network: n.list.Name, IfName: fmt.Sprintf("eth%d", i), Config: n.list.Bytes,
		})
	}
	return r, c.networks, nil
}

// add runs ADD of every network in order and returns the completed record.
func (s *Service) add(ctx context.Context, intent *record, networks []network) (*record, error) {
	done := *intent
	done.Phase = phaseAttached
	done.Attachments = append([]attachment(nil), intent.Attachments...)
	for i, n := range networks {
		a := &done.Attachments[i]
		res, err := s.cni.of(n.list.Name).AddNetworkList(ctx, n.list, intent.runtimeConf(a.IfName, intent.NetNS))
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.list.Name, pluginError(ctx, err))
		}
		if a.Result, err = checkedResult(res); err != nil {
			return nil, fmt.Errorf("network %s: %w", n.list.Name, err)
		}
	}
	if first := done.Attachments[0]; len(done.result().IPs) == 0 {
		return nil, fmt.Errorf("network %s: result has no address for %s: %w", first.Network, first.IfName, errs.Invalid)
	}
	return &done, nil
}

// checkedResult converts a result to the current version and refuses one that
// no interface could have.
func checkedResult(res types.Result) (json.RawMessage, error) {
	c, err := current.NewResultFromResult(res)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	if len(c.IPs) > maxItems || len(c.Interfaces) > maxItems {
		return nil, fmt.Errorf("result has %d addresses and %d interfaces: %w", len(c.IPs), len(c.Interfaces), errs.Invalid)
	}
	for _, i := range c.Interfaces {
		if err := utils.ValidateInterfaceName(i.Name); err != nil {
			return nil, fmt.Errorf("result has interface %q: %w: %w", i.Name, errs.Invalid, err)
		}
	}
	return json.Marshal(c)
}

// undo detaches after a failed Attach, within a bound of its own.
func (s *Service) undo(ctx context.Context, podID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Timeout)
	defer cancel()
	if err := s.detachLocked(ctx, podID); err != nil {
		klog.FromContext(ctx).Error(err, "Network of a pod stays half attached", "pod", podID)
	}
}

// Detach removes the pod from its networks with the configuration that Attach
// used. It is idempotent and needs neither the namespace nor anything in
// memory. Where a plugin fails the record stays, and a later call tries again.
func (s *Service) Detach(ctx context.Context, podID string) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	unlock, err := s.pods.Lock(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	return s.detachLocked(ctx, podID)
}

func (s *Service) detachLocked(ctx context.Context, podID string) error {
	r := s.records.Get(podID)
	if r == nil {
		return nil
	}
	netns := r.NetNS
	if !isNetNS(netns) {
		netns = "" // what CNI asks for where the namespace is gone
	}
	for i := len(r.Attachments) - 1; i >= 0; i-- {
		a := &r.Attachments[i]
		if err := s.del(ctx, r, a, netns); err != nil {
			return fmt.Errorf("detach pod %s: network %s: %w", podID, a.Network, pluginError(ctx, err))
		}
	}
	if err := s.forget(podID); err != nil {
		return fmt.Errorf("detach pod %s: %w", podID, err)
	}
	return nil
}

func (s *Service) del(ctx context.Context, r *record, a *attachment, netns string) error {
	list, err := a.list()
	if err != nil {
		return err
	}
	return s.cni.of(list.Name).DelNetworkList(ctx, list, r.runtimeConf(a.IfName, netns))
}

// pluginError adds the kind: a bound that was reached, or a plugin's wish to be
// called again.
func pluginError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errs.Timeout, err)
	}
	return fmt.Errorf("%w: %w", errs.Unavailable, err)
}

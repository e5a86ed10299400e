package network

import (
	"context"
	"fmt"

	"github.com/containernetworking/cni/libcni"
	"k8s.io/klog/v2"
)

// restoreRecords writes records anew, from libcni's cache, where they could not
// be read or are gone: without one nobody would ever detach the pod. It does
// nothing to the pod, which may be running.
func (s *Service) restoreRecords(ctx context.Context) error {
	cached, err := s.cni.installed.GetCachedAttachments("")
	if err != nil {
		return fmt.Errorf("read cached attachments: %w", err)
	}
	lost := map[string]*record{}
	for _, c := range cached { // sorted by their files' names, which end in the interface's
		if s.records.Get(c.ContainerID) != nil {
			continue
		}
		if lost[c.ContainerID] == nil {
			lost[c.ContainerID] = &record{
				Version: recordVersion, PodID: c.ContainerID, Phase: phaseAttached, NetNS: c.NetNS, Args: c.CniArgs, Capability: c.CapabilityArgs,
			}
		}
		lost[c.ContainerID].restore(s.cni.installed, c)
	}
	for id, r := range lost {
		klog.FromContext(ctx).Info("Network record restored from the cache of results", "pod", id)
		if err := s.store(r); err != nil {
			return err
		}
		s.ports.Hold(id, r.holder())
	}
	return nil
}

// restore adds an attachment. One whose result cannot be read does for DEL.
func (r *record) restore(cni *libcni.CNIConfig, c *libcni.NetworkAttachment) {
	a := attachment{Network: c.Network, IfName: c.IfName, Config: c.Config}
	list, err := a.list()
	if err == nil {
		res, resErr := cni.GetNetworkListCachedResult(list, r.runtimeConf(c.IfName, c.NetNS))
		if err = resErr; err == nil && res != nil {
			a.Result, err = checkedResult(res)
		}
	}
	if err != nil || a.Result == nil {
		r.Phase = phaseAdding
	}
	r.Attachments = append(r.Attachments, a)
}

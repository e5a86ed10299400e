package network

import (
	"encoding/json"
	"fmt"

	"github.com/berth-run/berth/pkg/network/hostport"
)

// claimPorts gives the pod of a new record the host's ports that it asks for, or
// says who has one. With a scheduler that is the scheduler's work.
func claimPorts(t *hostport.Table, r *record, v6 bool) error {
	h := r.holder()
	if err := t.Claim(r.PodID, h); err != nil {
		return err
	}
	for _, p := range h.Ports {
		if err := hostport.Free(p, v6); err != nil {
			t.Release(r.PodID)
			return err
		}
	}
	return nil
}

// holder describes the pod to whoever wants the same ports. One whose namespace
// is gone, with a reboot, keeps nobody from them.
func (r *record) holder() hostport.Holder {
	netns := r.NetNS
	h := hostport.Holder{
		Name:  fmt.Sprintf("%s/%s (%s)", r.arg("K8S_POD_NAMESPACE"), r.arg("K8S_POD_NAME"), r.PodID),
		Alive: func() bool { return isNetNS(netns) },
	}
	data, err := json.Marshal(r.Capability["portMappings"])
	if err == nil {
		_ = json.Unmarshal(data, &h.Ports) // fails only on what no Attach has written
	}
	return h
}

// arg returns the value of a CNI argument.
func (r *record) arg(name string) string {
	for _, a := range r.Args {
		if a[0] == name {
			return a[1]
		}
	}
	return ""
}

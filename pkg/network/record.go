package network

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

// phase is how far an attachment has come.
type phase string

const (
	phaseAdding   phase = "adding"   // ADD may have run, wholly, partly or not
	phaseAttached phase = "attached" // every ADD succeeded
)

const recordVersion = 1

// record is one pod's file. It does not change once stored.
type record struct {
	Version     int            `json:"version"`
	PodID       string         `json:"podID"`
	Phase       phase          `json:"phase"`
	NetNS       string         `json:"netns"`
	CreatedAt   time.Time      `json:"createdAt"`
	Args        [][2]string    `json:"args,omitempty"`
	Capability  map[string]any `json:"capabilities,omitempty"`
	Attachments []attachment   `json:"attachments"`
}

// attachment is one network of a pod, with the configuration that ADD used.
type attachment struct {
	Network string          `json:"network"`
	IfName  string          `json:"ifName"`
	Config  json.RawMessage `json:"config"`
	Result  json.RawMessage `json:"result,omitempty"`
}

func (a *attachment) list() (*libcni.NetworkConfigList, error) {
	return libcni.NetworkConfFromBytes(a.Config)
}

func (r *record) runtimeConf(ifName, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: r.PodID, NetNS: netns, IfName: ifName,
		Args: r.Args, CapabilityArgs: r.Capability,
	}
}

// result reads the first attachment's CNI result, which Attach has validated.
func (r *record) result() Result {
	res := Result{Raw: r.Attachments[0].Result}
	var c current.Result
	if json.Unmarshal(res.Raw, &c) != nil {
		return res
	}
	for _, ip := range c.IPs {
		if n := ip.Interface; n != nil && *n >= 0 && *n < len(c.Interfaces) {
			if on := c.Interfaces[*n]; on.Name != r.Attachments[0].IfName || on.Sandbox == "" {
				continue // such as a bridge's
			}
		}
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			res.IPs = append(res.IPs, addr.Unmap())
		}
	}
	for _, i := range c.Interfaces {
		res.Interfaces = append(res.Interfaces, Interface{Name: i.Name, MAC: i.Mac, Sandbox: i.Sandbox})
	}
	res.DNS = DNS{Servers: c.DNS.Nameservers, Searches: c.DNS.Search, Options: c.DNS.Options}
	return res
}

func (s *Service) recordPath(podID string) string { return filepath.Join(s.dir, podID+".json") }

func (s *Service) store(r *record) error {
	if err := statefile.Write(s.recordPath(r.PodID), r); err != nil {
		return err
	}
	s.records.Put(r.PodID, r)
	return nil
}

func (s *Service) forget(podID string) error {
	if err := os.Remove(s.recordPath(podID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.records.Delete(podID)
	s.ports.Release(podID)
	return nil
}

func (s *Service) loadRecords(ctx context.Context) error {
	if err := statefile.Sweep(s.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if e.IsDir() || !isRecord || statefile.Leftover(e.Name()) || e.Name() == builtinFile || e.Name() == podCIDRFile {
			continue
		}
		path := filepath.Join(s.dir, e.Name())
		var r record
		if err := statefile.Read(path, &r); err != nil || !r.valid(id) {
			aside, moveErr := statefile.Quarantine(path)
			klog.FromContext(ctx).Error(errors.Join(err, moveErr), "Network record set aside", "pod", id, "to", aside)
			continue
		}
		s.records.Put(id, &r)
		s.ports.Hold(id, r.holder())
	}
	return nil
}

func (r *record) valid(id string) bool {
	return r.Version == recordVersion && r.PodID == id && len(r.Attachments) > 0
}

package network

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/berth-run/berth/pkg/errs"
)

// AttachRequest names a pod and says what it asks of the network.
type AttachRequest struct {
	PodID, Name, Namespace, UID string
	// NetNS is the path of the pod's network namespace.
	NetNS string
	// CgroupParent is the pod's cgroup, for plugins with that capability.
	CgroupParent string
	Labels       map[string]string
	Annotations  map[string]string
	Ports        []PortMapping
	DNS          DNS
	// IPRanges, where given, are the ranges to allocate from, one set for each
	// address (the ipRanges capability).
	IPRanges [][]IPRange
}

// PortMapping publishes a port of the pod on the host. One without a host port
// publishes nothing.
type PortMapping struct {
	Protocol      string // tcp, udp or sctp; empty means tcp
	ContainerPort int32
	HostPort      int32
	HostIP        string // empty means every address of the host
}

// IPRange is a part of a subnet, as the ipRanges convention writes it.
type IPRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart,omitempty"`
	RangeEnd   string `json:"rangeEnd,omitempty"`
	Gateway    string `json:"gateway,omitempty"`
}

// Annotations that limit a pod's traffic, in bits a second.
const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"
)

// args returns CNI_ARGS as kubelet's runtimes give them. A value that would
// end the list's item is refused: it could set another argument.
func (r *AttachRequest) args() ([][2]string, error) {
	args := [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", r.Namespace},
		{"K8S_POD_NAME", r.Name},
		{"K8S_POD_INFRA_CONTAINER_ID", r.PodID},
		{"K8S_POD_UID", r.UID},
	}
	for _, a := range args {
		if strings.ContainsAny(a[1], ";=\n\x00") {
			return nil, fmt.Errorf("%s %q cannot be passed to CNI plugins: %w", a[0], a[1], errs.Invalid)
		}
	}
	if err := utils.ValidateContainerID(r.PodID); err != nil {
		return nil, fmt.Errorf("pod id %q: %w: %w", r.PodID, errs.Invalid, err)
	}
	return args, nil
}

// portMap is a portMappings capability entry.
type portMap struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// bandwidth is the bandwidth capability: bits a second and bits.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

type dnsCapability struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// bandwidthCapability is what limits are handed over as, and the plugin's name.
const bandwidthCapability = "bandwidth"

// capabilities returns what plugins may ask for by name in "capabilities".
func (r *AttachRequest) capabilities() (map[string]any, error) {
	caps := map[string]any{}
	ports, err := portMaps(r.Ports)
	if err != nil {
		return nil, err
	}
	if len(ports) > 0 {
		caps["portMappings"] = ports
	}
	limits, err := parseBandwidth(r.Annotations)
	if err != nil {
		return nil, err
	}
	if limits != (bandwidth{}) {
		caps[bandwidthCapability] = limits
	}
	if d := r.DNS; len(d.Servers)+len(d.Searches)+len(d.Options) > 0 {
		caps["dns"] = dnsCapability(d)
	}
	if len(r.IPRanges) > 0 {
		caps["ipRanges"] = r.IPRanges
	}
	if r.CgroupParent != "" {
		caps["cgroupPath"] = r.CgroupParent
	}
	if len(r.Annotations) > 0 {
		caps["io.kubernetes.cri.pod-annotations"] = r.Annotations
	}
	return caps, nil
}

func portMaps(ports []PortMapping) ([]portMap, error) {
	var out []portMap
	for _, p := range ports {
		if p.HostPort == 0 {
			continue
		}
		proto := strings.ToLower(p.Protocol)
		if proto == "" {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return nil, fmt.Errorf("port protocol %q: %w", p.Protocol, errs.Invalid)
		}
		if p.HostPort < 0 || p.HostPort > math.MaxUint16 || p.ContainerPort <= 0 || p.ContainerPort > math.MaxUint16 {
			return nil, fmt.Errorf("port %d to %d: %w", p.HostPort, p.ContainerPort, errs.Invalid)
		}
		if p.HostIP != "" {
			if addr, err := netip.ParseAddr(p.HostIP); err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("host address %q of port %d: %w", p.HostIP, p.HostPort, errs.Invalid)
			}
		}
		out = append(out, portMap{p.HostPort, p.ContainerPort, proto, p.HostIP})
	}
	return out, nil
}

// parseBandwidth reads the annotations as Kubernetes does: a quantity between
// 1k and 1P bits a second, with no limit on bursts.
func parseBandwidth(annotations map[string]string) (bandwidth, error) {
	var b bandwidth
	var err error
	if b.IngressRate, err = rate(annotations, ingressAnnotation); err != nil {
		return bandwidth{}, err
	}
	if b.EgressRate, err = rate(annotations, egressAnnotation); err != nil {
		return bandwidth{}, err
	}
	if b.IngressRate > 0 {
		b.IngressBurst = math.MaxUint32
	}
	if b.EgressRate > 0 {
		b.EgressBurst = math.MaxUint32
	}
	return b, nil
}

func rate(annotations map[string]string, key string) (uint64, error) {
	text, ok := annotations[key]
	if !ok {
		return 0, nil
	}
	const least, most, longest = 1e3, 1e15, 64
	if len(text) > longest {
		return 0, fmt.Errorf("annotation %s: %d bytes long: %w", key, len(text), errs.Invalid)
	}
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("annotation %s: %q: %w: %w", key, text, errs.Invalid, err)
	}
	if q.CmpInt64(least) < 0 || q.CmpInt64(most) > 0 {
		return 0, fmt.Errorf("annotation %s: %q is not between 1k and 1P: %w", key, text, errs.Invalid)
	}
	return uint64(q.Value()), nil
}

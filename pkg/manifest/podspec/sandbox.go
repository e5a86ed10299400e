package podspec

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// Sandbox turns a pod into what RunPodSandbox takes.
func Sandbox(p *corev1.Pod, attempt uint32, logs string) *runtimeapi.PodSandboxConfig {
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID), Attempt: attempt},
		LogDirectory: logs,
		DnsConfig:    dnsConfig(p),
		Labels:       podLabels(p),
		Annotations:  maps.Clone(p.Annotations),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			SecurityContext: sandboxSecurity(p),
			Sysctls:         sysctls(p),
		},
	}
	if !p.Spec.HostNetwork {
		config.Hostname = hostname(p)
		config.PortMappings = portMappings(p)
	}
	return config
}

func podLabels(p *corev1.Pod) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, p.Labels)
	maps.Copy(labels, ownLabels(p))
	return labels
}

// ownLabels are what the controller finds its pods and containers by.
func ownLabels(p *corev1.Pod) map[string]string {
	return map[string]string{
		apiv1.LabelPodName:      p.Name,
		apiv1.LabelPodNamespace: p.Namespace,
		apiv1.LabelPodUID:       string(p.UID),
		apiv1.LabelOwner:        apiv1.OwnerManifest,
	}
}

// hostname is the pod's name within the length of a host name, as kubelet cuts
// it.
func hostname(p *corev1.Pod) string {
	name := p.Spec.Hostname
	if name == "" {
		name = p.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

func portMappings(p *corev1.Pod) []*runtimeapi.PortMapping {
	var all []*runtimeapi.PortMapping
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range containers {
			for _, port := range c.Ports {
				all = append(all, &runtimeapi.PortMapping{
					Protocol:      runtimeapi.Protocol(runtimeapi.Protocol_value[string(port.Protocol)]),
					ContainerPort: port.ContainerPort,
					HostPort:      port.HostPort,
					HostIp:        port.HostIP,
				})
			}
		}
	}
	return all
}

// dnsConfig is nil where the node's own resolv.conf is meant: without a
// cluster, ClusterFirst means that too.
func dnsConfig(p *corev1.Pod) *runtimeapi.DNSConfig {
	if p.Spec.DNSPolicy != corev1.DNSNone && p.Spec.DNSConfig == nil {
		return nil
	}
	config := &runtimeapi.DNSConfig{}
	if p.Spec.DNSPolicy != corev1.DNSNone {
		config = nodeDNS(p.Spec.HostNetwork)
	}
	if d := p.Spec.DNSConfig; d != nil {
		config.Servers = append(config.Servers, d.Nameservers...)
		config.Searches = append(config.Searches, d.Searches...)
		for _, o := range d.Options {
			option := o.Name
			if o.Value != nil {
				option += ":" + *o.Value
			}
			config.Options = append(config.Options, option)
		}
	}
	return config
}

func sysctls(p *corev1.Pod) map[string]string {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	all := map[string]string{}
	for _, s := range p.Spec.SecurityContext.Sysctls {
		all[s.Name] = s.Value
	}
	return all
}

func namespaces(p *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if p.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if p.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	if p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace {
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	if p.Spec.HostPID {
		o.Pid = runtimeapi.NamespaceMode_NODE
	}
	return o
}

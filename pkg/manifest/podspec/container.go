package podspec

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// annotationRestarts is kubelet's name for a container's count of restarts.
const annotationRestarts = "io.kubernetes.container.restartCount"

// Input is what a container's configuration is made of beside the pod.
type Input struct {
	Attempt uint32
	// ImageID is that of the image on this node.
	ImageID string
	Facts   Facts
	// NodeMemory is in bytes; 0 is unknown.
	NodeMemory int64
	// Volumes maps the pod's volumes to host paths.
	Volumes map[string]string
}

// Container turns a container into what CreateContainer takes.
func Container(p *corev1.Pod, c *corev1.Container, in Input) (*runtimeapi.ContainerConfig, error) {
	env, values, err := environment(p, c, in.Facts)
	if err != nil {
		return nil, err
	}
	limits, err := resources(c, oomScoreAdj(p, c, in.NodeMemory))
	if err != nil {
		return nil, err
	}
	security, err := containerSecurity(p, c)
	if err != nil {
		return nil, err
	}
	mounts, err := mounts(c, in.Volumes)
	if err != nil {
		return nil, err
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: in.Attempt},
		Image:       &runtimeapi.ImageSpec{Image: in.ImageID, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command, values),
		Args:        expandAll(c.Args, values),
		WorkingDir:  c.WorkingDir,
		Envs:        env,
		Mounts:      mounts,
		Labels:      containerLabels(p, c),
		Annotations: map[string]string{annotationRestarts: strconv.FormatUint(uint64(in.Attempt), 10)},
		LogPath:     fmt.Sprintf("%s_%d.log", c.Name, in.Attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		Linux:       &runtimeapi.LinuxContainerConfig{Resources: limits, SecurityContext: security},
	}
	annotate(config, p, c)
	return config, nil
}

// annotate tells lists what CRI's do not say.
func annotate(config *runtimeapi.ContainerConfig, p *corev1.Pod, c *corev1.Container) {
	if c.TTY {
		config.Annotations[apiv1.AnnotationTTY] = "true"
	}
	if command := slices.Concat(config.Command, config.Args); len(command) > 0 {
		config.Annotations[apiv1.AnnotationCommand] = strings.Join(command, " ")
	}
	var ports []string
	for _, port := range c.Ports {
		if port.HostPort > 0 && !p.Spec.HostNetwork {
			host := net.JoinHostPort(cmp.Or(port.HostIP, "0.0.0.0"), strconv.Itoa(int(port.HostPort)))
			ports = append(ports, fmt.Sprintf("%s->%d/%s", host, port.ContainerPort, strings.ToLower(string(port.Protocol))))
		}
	}
	if len(ports) > 0 {
		config.Annotations[apiv1.AnnotationPorts] = strings.Join(ports, ", ")
	}
}

func containerLabels(p *corev1.Pod, c *corev1.Container) map[string]string {
	labels := maps.Clone(ownLabels(p))
	labels[apiv1.LabelContainerName] = c.Name
	return labels
}

var propagations = map[corev1.MountPropagationMode]runtimeapi.MountPropagation{
	corev1.MountPropagationNone:            runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
	corev1.MountPropagationHostToContainer: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	corev1.MountPropagationBidirectional:   runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
}

func mounts(c *corev1.Container, volumes map[string]string) ([]*runtimeapi.Mount, error) {
	var all []*runtimeapi.Mount
	for _, v := range c.VolumeMounts {
		m := &runtimeapi.Mount{ContainerPath: v.MountPath, HostPath: volumes[v.Name], Readonly: v.ReadOnly}
		if v.MountPropagation != nil {
			var ok bool
			if m.Propagation, ok = propagations[*v.MountPropagation]; !ok {
				return nil, fmt.Errorf("mountPropagation %q: %w", *v.MountPropagation, errs.Invalid)
			}
		}
		if r := v.RecursiveReadOnly; r != nil && *r == corev1.RecursiveReadOnlyEnabled {
			m.RecursiveReadOnly = true
		}
		all = append(all, m)
	}
	return all, nil
}

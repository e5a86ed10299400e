package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// defaultGrace is how long a pod has to end, in seconds, as in Kubernetes.
const defaultGrace = 30

// setDefaults fills in what the API server would.
func setDefaults(p *corev1.Pod) {
	p.Status = corev1.PodStatus{}
	setIfZero(&p.Namespace, corev1.NamespaceDefault)
	setIfZero(&p.Spec.RestartPolicy, corev1.RestartPolicyAlways)
	setIfZero(&p.Spec.DNSPolicy, corev1.DNSClusterFirst)
	if p.Spec.TerminationGracePeriodSeconds == nil {
		grace := int64(defaultGrace)
		p.Spec.TerminationGracePeriodSeconds = &grace
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			setContainerDefaults(&containers[i])
		}
	}
}

func setContainerDefaults(c *corev1.Container) {
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
		if latest(c.Image) {
			c.ImagePullPolicy = corev1.PullAlways
		}
	}
	for i := range c.Ports {
		setIfZero(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	// A limit without a request is both.
	for name, limit := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			if c.Resources.Requests == nil {
				c.Resources.Requests = corev1.ResourceList{}
			}
			c.Resources.Requests[name] = limit
		}
	}
}

func setIfZero[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// latest tells whether a reference names the tag latest, as one without a tag
// does.
func latest(ref string) bool {
	if strings.Contains(ref, "@") {
		return false
	}
	name := ref[strings.LastIndexByte(ref, '/')+1:]
	_, tag, hasTag := strings.Cut(name, ":")
	return !hasTag || tag == "latest"
}

// IsSidecar tells an init container that runs beside the others.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

package podspec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Names end up in paths and labels, so their shape is checked, as the API
// server would.
var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	uid          = regexp.MustCompile(`^[a-zA-Z0-9-]{1,64}$`)
)

// ValidUID tells whether s has the shape of a pod's uid, which names directories.
func ValidUID(s string) bool { return uid.MatchString(s) }

// Validate tells what is wrong with a pod that has its defaults.
func Validate(p *corev1.Pod) error {
	switch {
	case !dnsSubdomain.MatchString(p.Name) || strings.Contains(p.Name, ".."):
		return invalid("metadata.name", p.Name, "use lower-case letters, digits, '-' and '.'")
	case !dnsLabel.MatchString(p.Namespace):
		return invalid("metadata.namespace", p.Namespace, "use lower-case letters, digits and '-'")
	case p.UID != "" && !uid.MatchString(string(p.UID)):
		return invalid("metadata.uid", string(p.UID), "use letters, digits and '-'")
	case p.Spec.Hostname != "" && !dnsLabel.MatchString(p.Spec.Hostname):
		return invalid("spec.hostname", p.Spec.Hostname, "use lower-case letters, digits and '-'")
	case len(p.Spec.Containers) == 0:
		return fmt.Errorf("spec.containers is empty: %w", errs.Invalid)
	case p.Spec.TerminationGracePeriodSeconds == nil || *p.Spec.TerminationGracePeriodSeconds < 0:
		return fmt.Errorf("spec.terminationGracePeriodSeconds is missing or negative: %w", errs.Invalid)
	case !slices.Contains([]corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}, p.Spec.RestartPolicy):
		return invalid("spec.restartPolicy", string(p.Spec.RestartPolicy), "choose Always, OnFailure or Never")
	case p.Spec.DNSPolicy == corev1.DNSNone && (p.Spec.DNSConfig == nil || len(p.Spec.DNSConfig.Nameservers) == 0):
		return fmt.Errorf("spec.dnsPolicy None needs spec.dnsConfig.nameservers: %w", errs.Invalid)
	}
	return validateContainers(p)
}

func invalid(field, value, advice string) error {
	return fmt.Errorf("%s %q: %s: %w", field, value, advice, errs.Invalid)
}

func validateContainers(p *corev1.Pod) error {
	volumes := map[string]bool{}
	for _, v := range p.Spec.Volumes {
		if !dnsLabel.MatchString(v.Name) || volumes[v.Name] {
			return invalid("spec.volumes", v.Name, "names are unique, of lower-case letters, digits and '-'")
		}
		if (v.HostPath == nil) == (v.EmptyDir == nil) {
			return invalid("spec.volumes", v.Name, "give it one source, hostPath or emptyDir")
		}
		if v.HostPath != nil && !path.IsAbs(v.HostPath.Path) {
			return invalid("hostPath.path", v.HostPath.Path, "give an absolute path")
		}
		volumes[v.Name] = true
	}
	names := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if err := validateContainer(&p.Spec.InitContainers[i], names, volumes); err != nil {
			return err
		}
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		if c.RestartPolicy != nil {
			return fmt.Errorf("container %q: restartPolicy is for init containers: %w", c.Name, errs.Unsupported)
		}
		if err := validateContainer(c, names, volumes); err != nil {
			return err
		}
	}
	return nil
}

func validateContainer(c *corev1.Container, names, volumes map[string]bool) error {
	switch {
	case !dnsLabel.MatchString(c.Name) || names[c.Name]:
		return invalid("container name", c.Name, "names are unique, of lower-case letters, digits and '-'")
	case c.Image == "":
		return fmt.Errorf("container %q names no image: %w", c.Name, errs.Invalid)
	case c.RestartPolicy != nil && !IsSidecar(c):
		return fmt.Errorf("container %q: restartPolicy of a container may only be Always: %w", c.Name, errs.Invalid)
	}
	names[c.Name] = true
	for _, m := range c.VolumeMounts {
		if !volumes[m.Name] {
			return fmt.Errorf("container %q mounts volume %q, which spec.volumes does not have: %w", c.Name, m.Name, errs.Invalid)
		}
		if !path.IsAbs(m.MountPath) {
			return fmt.Errorf("container %q: mountPath %q is not absolute: %w", c.Name, m.MountPath, errs.Invalid)
		}
	}
	for _, p := range c.Ports {
		if p.ContainerPort < 1 || p.ContainerPort > 65535 || p.HostPort < 0 || p.HostPort > 65535 {
			return fmt.Errorf("container %q: ports go from 1 to 65535: %w", c.Name, errs.Invalid)
		}
	}
	if _, err := resources(c, 0); err != nil {
		return fmt.Errorf("container %q: %w", c.Name, err)
	}
	return nil
}

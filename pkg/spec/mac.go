package spec

import (
	"cmp"
	"fmt"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
)

// mandatoryAccess sets AppArmor and SELinux confinement.
func (b *builder) mandatoryAccess() (err error) {
	b.spec.Process.SelinuxLabel, b.spec.Linux.MountLabel, err = SELinux(b.Pod, b.Container, b.Host)
	if err != nil {
		return err
	}
	return b.appArmor()
}

// appArmor refuses a named profile where the host has no AppArmor: running
// without what the pod asked for would be silent. RuntimeDefault is a wish.
func (b *builder) appArmor() error {
	p := b.security.GetApparmor()
	if p == nil {
		text := b.security.GetApparmorProfile() //nolint:staticcheck // old kubelets send the deprecated field
		if text == "" {
			text = profileDefault
		}
		p = parseProfile(text)
	}
	if b.privileged() && b.security.GetApparmor().GetProfileType() != cri.SecurityProfile_Localhost {
		return nil
	}
	switch p.GetProfileType() {
	case cri.SecurityProfile_Unconfined:
	case cri.SecurityProfile_RuntimeDefault:
		if b.Host.AppArmor {
			b.spec.Process.ApparmorProfile = b.Options.AppArmorProfile
		}
	case cri.SecurityProfile_Localhost:
		name := strings.TrimPrefix(p.GetLocalhostRef(), profileLocalhost)
		if name == "" || strings.ContainsAny(name, "\x00\n") {
			return fmt.Errorf("AppArmor profile %q: %w", p.GetLocalhostRef(), errs.Invalid)
		}
		if !b.Host.AppArmor {
			return fmt.Errorf("AppArmor profile %q: the host has no AppArmor: %w", name, errs.Unsupported)
		}
		b.spec.Process.ApparmorProfile = name
	default:
		return fmt.Errorf("AppArmor profile of type %s: %w", p.GetProfileType(), errs.Invalid)
	}
	return nil
}

// SELinux builds the labels of a container's processes and of what only it has mounted
// from its options, else the pod's. With SELinux off the options have no effect, as
// for every runtime.
func SELinux(pod *cri.PodSandboxConfig, c *cri.ContainerConfig, h host.Facts) (process, mount string, err error) {
	s := c.GetLinux().GetSecurityContext()
	o := s.GetSelinuxOptions()
	if o == nil {
		o = pod.GetLinux().GetSecurityContext().GetSelinuxOptions()
	}
	if o == nil || !h.SELinux || s.GetPrivileged() {
		return "", "", nil
	}
	for _, part := range []string{o.GetUser(), o.GetRole(), o.GetType()} {
		if strings.ContainsAny(part, ": \x00\n") {
			return "", "", fmt.Errorf("SELinux option %q: %w", part, errs.Invalid)
		}
	}
	level := cmp.Or(o.GetLevel(), "s0")
	if strings.ContainsAny(level, " \x00\n\"\\") {
		return "", "", fmt.Errorf("SELinux level %q: %w", level, errs.Invalid)
	}
	user := cmp.Or(o.GetUser(), "system_u")
	process = strings.Join([]string{user, cmp.Or(o.GetRole(), "system_r"), cmp.Or(o.GetType(), "container_t"), level}, ":")
	return process, strings.Join([]string{user, "object_r", "container_file_t", level}, ":"), nil
}

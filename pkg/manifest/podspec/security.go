package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// sandboxSecurity is the pod's own part; a privileged container makes the
// sandbox privileged, as with kubelet.
func sandboxSecurity(p *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	sc := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(p),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			sc.Privileged = sc.Privileged || isPrivileged(&containers[i])
		}
	}
	ps := p.Spec.SecurityContext
	if ps == nil {
		return sc
	}
	sc.RunAsUser, sc.RunAsGroup = int64Value(ps.RunAsUser), int64Value(ps.RunAsGroup)
	sc.SupplementalGroups = groups(ps)
	sc.SupplementalGroupsPolicy = groupsPolicy(ps)
	sc.SelinuxOptions = selinux(ps.SELinuxOptions)
	return sc
}

func isPrivileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}

// effective is the container's security context over the pod's.
func effective(p *corev1.Pod, c *corev1.Container) corev1.SecurityContext {
	var sc corev1.SecurityContext
	if c.SecurityContext != nil {
		sc = *c.SecurityContext
	}
	if ps := p.Spec.SecurityContext; ps != nil {
		inherit(&sc.RunAsUser, ps.RunAsUser)
		inherit(&sc.RunAsGroup, ps.RunAsGroup)
		inherit(&sc.RunAsNonRoot, ps.RunAsNonRoot)
		inherit(&sc.SeccompProfile, ps.SeccompProfile)
		inherit(&sc.AppArmorProfile, ps.AppArmorProfile)
		inherit(&sc.SELinuxOptions, ps.SELinuxOptions)
	}
	return sc
}

func inherit[T any](own **T, pods *T) {
	if *own == nil {
		*own = pods
	}
}

func containerSecurity(p *corev1.Pod, c *corev1.Container) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := effective(p, c)
	seccomp, err := seccompProfile(sc.SeccompProfile, isPrivileged(c))
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(p),
		Privileged:       isPrivileged(c),
		RunAsUser:        int64Value(sc.RunAsUser),
		RunAsGroup:       int64Value(sc.RunAsGroup),
		ReadonlyRootfs:   sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem,
		NoNewPrivs:       sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		SelinuxOptions:   selinux(sc.SELinuxOptions),
		Seccomp:          seccomp,
	}
	if out.Apparmor, err = apparmorProfile(sc.AppArmorProfile); err != nil {
		return nil, err
	}
	if sc.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{
			AddCapabilities:  capabilityNames(sc.Capabilities.Add),
			DropCapabilities: capabilityNames(sc.Capabilities.Drop),
		}
	}
	if ps := p.Spec.SecurityContext; ps != nil {
		out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(ps), groupsPolicy(ps)
	}
	if !out.Privileged && (sc.ProcMount == nil || *sc.ProcMount != corev1.UnmaskedProcMount) {
		out.MaskedPaths, out.ReadonlyPaths = apiv1.MaskedPaths(), apiv1.ReadonlyPaths()
	}
	return out, nil
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

// groups are the pod's supplemental groups and the one that owns its volumes.
func groups(ps *corev1.PodSecurityContext) []int64 {
	all := append([]int64(nil), ps.SupplementalGroups...)
	if ps.FSGroup != nil {
		all = append(all, *ps.FSGroup)
	}
	return all
}

func groupsPolicy(ps *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if ps.SupplementalGroupsPolicy != nil && *ps.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func capabilityNames(all []corev1.Capability) []string {
	var names []string
	for _, c := range all {
		names = append(names, string(c))
	}
	return names
}

// seccompProfile is the runtime's default where the manifest names none: there
// is no cluster here whose defaults would be weaker.
func seccompProfile(s *corev1.SeccompProfile, privileged bool) (*runtimeapi.SecurityProfile, error) {
	switch {
	case privileged:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case s == nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	}
	return profile("seccompProfile", string(s.Type), s.LocalhostProfile)
}

func apparmorProfile(a *corev1.AppArmorProfile) (*runtimeapi.SecurityProfile, error) {
	if a == nil {
		return nil, nil
	}
	return profile("appArmorProfile", string(a.Type), a.LocalhostProfile)
}

func profile(field, kind string, localhost *string) (*runtimeapi.SecurityProfile, error) {
	t, ok := runtimeapi.SecurityProfile_ProfileType_value[kind]
	if !ok || (kind == "Localhost") != (localhost != nil) {
		return nil, fmt.Errorf("%s of type %q: choose RuntimeDefault, Unconfined, or Localhost with a localhostProfile: %w", field, kind, errs.Invalid)
	}
	p := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_ProfileType(t)}
	if localhost != nil {
		p.LocalhostRef = *localhost
	}
	return p, nil
}

// CheckNonRoot refuses a container that must not be root and would be.
func CheckNonRoot(p *corev1.Pod, c *corev1.Container, image *runtimeapi.Image) error {
	sc := effective(p, c)
	if sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot {
		return nil
	}
	root := false
	switch {
	case sc.RunAsUser != nil:
		root = *sc.RunAsUser == 0
	case image.GetUid() != nil:
		root = image.GetUid().GetValue() == 0
	case image.GetUsername() == "":
		root = true
	default:
		return fmt.Errorf("runAsNonRoot: the image's user %q is no number: set runAsUser: %w", image.GetUsername(), errs.Invalid)
	}
	if root {
		return fmt.Errorf("runAsNonRoot: the container would run as root: %w", errs.Invalid)
	}
	return nil
}

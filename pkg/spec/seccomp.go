package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/profiles/seccomp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// The words of the deprecated profile fields, also used in configuration.
const (
	profileDefault    = "runtime/default"
	profileDockerOld  = "docker/default"
	profileUnconfined = "unconfined"
	profileLocalhost  = "localhost/"
)

// maxSeccompProfile bounds a profile's file, in bytes.
const maxSeccompProfile = 4 << 20

func (b *builder) seccomp() error {
	if b.privileged() {
		return nil
	}
	p, err := seccompProfile(b.security, b.Options.SeccompUnset)
	if err != nil {
		return err
	}
	if p.GetProfileType() == cri.SecurityProfile_Unconfined {
		return nil
	}
	if !b.Host.Seccomp {
		return fmt.Errorf("seccomp profile: the kernel has no seccomp: %w", errs.Unsupported)
	}
	if p.GetProfileType() == cri.SecurityProfile_RuntimeDefault {
		b.spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(b.spec)
		return err
	}
	body, err := b.System.ReadFile(p.GetLocalhostRef(), maxSeccompProfile)
	if err != nil {
		return fmt.Errorf("seccomp profile %s: %w: %w", p.GetLocalhostRef(), errs.Invalid, err)
	}
	loaded, err := seccomp.LoadProfile(string(body), b.spec)
	if err == nil && loaded != nil && loaded.ListenerPath+loaded.ListenerMetadata != "" && !path.IsAbs(loaded.ListenerPath) {
		err = fmt.Errorf("listenerPath %q is no absolute path", loaded.ListenerPath)
	}
	if err != nil {
		return fmt.Errorf("seccomp profile %s: %w: %w", p.GetLocalhostRef(), errs.Invalid, err)
	}
	b.spec.Linux.Seccomp = loaded
	return nil
}

// seccompProfile reads the field, else its deprecated form, else the node's
// setting.
func seccompProfile(s *cri.LinuxContainerSecurityContext, unset string) (*cri.SecurityProfile, error) {
	p := s.GetSeccomp()
	if p == nil {
		text := s.GetSeccompProfilePath() //nolint:staticcheck // old kubelets send the deprecated field
		if text == "" {
			text = unset
		}
		p = parseProfile(text)
	}
	switch p.GetProfileType() {
	case cri.SecurityProfile_RuntimeDefault, cri.SecurityProfile_Unconfined:
		if p.GetLocalhostRef() != "" {
			return nil, fmt.Errorf("seccomp profile of type %s with a path: %w", p.GetProfileType(), errs.Invalid)
		}
	case cri.SecurityProfile_Localhost:
		if !path.IsAbs(p.GetLocalhostRef()) {
			return nil, fmt.Errorf("seccomp profile %q is no absolute path: %w", p.GetLocalhostRef(), errs.Invalid)
		}
	default:
		return nil, fmt.Errorf("seccomp profile of type %s: %w", p.GetProfileType(), errs.Invalid)
	}
	return p, nil
}

// parseProfile reads the deprecated form of a profile.
func parseProfile(text string) *cri.SecurityProfile {
	switch text {
	case "", profileUnconfined:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	case profileDefault, profileDockerOld:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	}
	return &cri.SecurityProfile{
		ProfileType:  cri.SecurityProfile_Localhost,
		LocalhostRef: strings.TrimPrefix(text, profileLocalhost),
	}
}

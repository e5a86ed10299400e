package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
)

// DefaultCapabilities returns what a container gets that asks for nothing: the
// set that Docker made customary.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// capabilities sets the process's capabilities. Those that Berth does not hold
// itself are left out, as the kernel would refuse the whole set. The
// inheritable set holds the ambient ones only (CVE-2022-24769).
func (b *builder) capabilities() error {
	held := b.Host.Capabilities
	if b.privileged() {
		b.setCapabilities(held, nil)
		return nil
	}
	want := b.security.GetCapabilities()
	add, addAll, err := capabilityNames(want.GetAddCapabilities())
	if err != nil {
		return fmt.Errorf("add capabilities: %w", err)
	}
	drop, dropAll, err := capabilityNames(want.GetDropCapabilities())
	if err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	ambient, ambientAll, err := capabilityNames(want.GetAddAmbientCapabilities())
	if err != nil {
		return fmt.Errorf("add ambient capabilities: %w", err)
	}
	if ambientAll {
		ambient = held
	}
	// ALL first, so that "drop ALL, add X" and "add ALL, drop X" both do what
	// they say.
	set := b.Options.Capabilities
	if set == nil {
		set = DefaultCapabilities()
	}
	if addAll {
		set = held
	}
	if dropAll {
		set = nil
	}
	keep := func(name string) bool { return slices.Contains(held, name) && !slices.Contains(drop, name) }
	ambient = filter(ambient, keep)
	b.setCapabilities(filter(slices.Concat(set, add, ambient), keep), ambient)
	return nil
}

func (b *builder) setCapabilities(all, ambient []string) {
	all, ambient = inOrder(all), inOrder(ambient)
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: all, Effective: all, Permitted: all, Inheritable: ambient, Ambient: ambient,
	}
}

// capabilityNames checks names, which come with or without CAP_ and in any
// case, and tells whether ALL is among them.
func capabilityNames(in []string) (names []string, all bool, err error) {
	known := host.KnownCapabilities()
	for _, s := range in {
		name := strings.ToUpper(s)
		if name == "ALL" || name == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if !slices.Contains(known, name) {
			return nil, false, fmt.Errorf("unknown capability %q: %w", s, errs.Invalid)
		}
		names = append(names, name)
	}
	return names, all, nil
}

// inOrder returns the set in the order of the kernel's numbers.
func inOrder(set []string) []string {
	return filter(host.KnownCapabilities(), func(name string) bool { return slices.Contains(set, name) })
}

func filter(in []string, keep func(string) bool) []string {
	out := make([]string, 0, len(in))
	for _, s := range in {
		if keep(s) {
			out = append(out, s)
		}
	}
	return out
}

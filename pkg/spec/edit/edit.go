// Package edit changes OCI specifications in the ways that more than one of those
// need who have a say in them: package spec, CDI's vendors, NRI's plugins.
package edit

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// SetEnv sets a variable, NAME=VALUE, in the place of one of that name.
func SetEnv(p *specs.Process, kv string) {
	name, _, _ := strings.Cut(kv, "=")
	at := slices.IndexFunc(p.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
	if at < 0 {
		p.Env = append(p.Env, kv)
		return
	}
	p.Env[at] = kv
}

// SetDevice adds a node, in the place of one at the same path.
func SetDevice(l *specs.Linux, n specs.LinuxDevice) {
	at := slices.IndexFunc(l.Devices, func(have specs.LinuxDevice) bool { return have.Path == n.Path })
	if at < 0 {
		l.Devices = append(l.Devices, n)
		return
	}
	l.Devices[at] = n
}

// DropDevice takes the node at a path away.
func DropDevice(l *specs.Linux, path string) {
	l.Devices = slices.DeleteFunc(l.Devices, func(have specs.LinuxDevice) bool { return have.Path == path })
}

// Allow adds the rule that lets the container use a device.
func Allow(l *specs.Linux, n specs.LinuxDevice, access string) {
	if l.Resources == nil {
		l.Resources = &specs.LinuxResources{}
	}
	l.Resources.Devices = append(l.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: access})
}

// DropMount takes the mounts at a path, which is clean, away.
func DropMount(s *specs.Spec, destination string) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(have specs.Mount) bool { return path.Clean(have.Destination) == destination })
}

// SortMounts puts outer mounts before those in them, and else leaves their order.
func SortMounts(all []specs.Mount) {
	depth := func(m specs.Mount) int { return strings.Count(path.Clean(m.Destination), "/") }
	slices.SortStableFunc(all, func(x, y specs.Mount) int { return depth(x) - depth(y) })
}

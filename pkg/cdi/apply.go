package cdi

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Apply adds the edits to a container's specification, which they win over: a
// variable, device or mount in the same place is replaced. It looks at nothing
// else. Nil edits change nothing.
func (e *Edits) Apply(s *specs.Spec) {
	if e == nil {
		return
	}
	for _, kv := range e.env {
		setEnv(s.Process, kv)
	}
	for _, d := range e.devices {
		addDevice(s, d)
	}
	for _, m := range e.mounts {
		m.Options = slices.Clone(m.Options)
		if m.Type == "bind" && hasUserNamespace(s) {
			mapIDs(&m)
		}
		putMount(s, m)
	}
	for name, d := range e.netDevices {
		if s.Linux.NetDevices == nil {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
		}
		s.Linux.NetDevices[name] = d
	}
	if e.rdt != nil {
		s.Linux.IntelRdt = e.rdt
	}
	for _, gid := range e.gids {
		if gid != 0 && !slices.Contains(s.Process.User.AdditionalGids, gid) {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, gid)
		}
	}
	e.addHooks(s)
}

func setEnv(p *specs.Process, kv string) {
	name, _, _ := strings.Cut(kv, "=")
	at := slices.IndexFunc(p.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
	if at < 0 {
		p.Env = append(p.Env, kv)
		return
	}
	p.Env[at] = kv
}

// addDevice adds a node, owned by the container's user unless it says otherwise,
// and the rule that lets the container use it. The rule is also what systemd is
// told, which writes its own rules anew at each daemon-reload.
func addDevice(s *specs.Spec, d device) {
	n := d.node
	user := s.Process.User
	if n.UID == nil && user.UID > 0 {
		n.UID = &user.UID
	}
	if n.GID == nil && user.GID > 0 {
		n.GID = &user.GID
	}
	if d.access != "" && n.Type != "p" {
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: d.access,
		})
	}
	s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(have specs.LinuxDevice) bool { return have.Path == n.Path })
	if hasUserNamespace(s) && d.hostPath != n.Path {
		// No node can be made there, and the runtime would mount the host's of the
		// same name instead.
		putMount(s, specs.Mount{Destination: n.Path, Source: d.hostPath, Type: "bind", Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
		return
	}
	s.Linux.Devices = append(s.Linux.Devices, n)
}

func hasUserNamespace(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace })
}

// mapIDs shows the owners of a bind mount as the container's own users.
func mapIDs(m *specs.Mount) {
	switch {
	case slices.Contains(m.Options, "idmap"), slices.Contains(m.Options, "ridmap"):
	case slices.Contains(m.Options, "rbind"):
		m.Options = append(m.Options, "ridmap")
	default:
		m.Options = append(m.Options, "idmap")
	}
}

// putMount adds a mount in place of one at the same path, after those above it.
func putMount(s *specs.Spec, m specs.Mount) {
	s.Mounts = slices.DeleteFunc(s.Mounts, func(have specs.Mount) bool { return path.Clean(have.Destination) == m.Destination })
	s.Mounts = append(s.Mounts, m)
	slices.SortStableFunc(s.Mounts, func(x, y specs.Mount) int { return depth(x.Destination) - depth(y.Destination) })
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

func (e *Edits) addHooks(s *specs.Spec) {
	hooks := specs.Hooks{}
	if s.Hooks != nil {
		hooks = *s.Hooks
	}
	for _, l := range []struct{ to, from *[]specs.Hook }{
		{&hooks.Prestart, &e.hooks.Prestart}, //nolint:staticcheck // vendors still write it
		{&hooks.CreateRuntime, &e.hooks.CreateRuntime},
		{&hooks.CreateContainer, &e.hooks.CreateContainer},
		{&hooks.StartContainer, &e.hooks.StartContainer},
		{&hooks.Poststart, &e.hooks.Poststart},
		{&hooks.Poststop, &e.hooks.Poststop},
	} {
		if len(*l.from) > 0 {
			*l.to = slices.Concat(*l.to, *l.from)
			s.Hooks = &hooks
		}
	}
}

package cdi

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/spec/edit"
)

// Mappable reports whether the file system of source, and those mounted below it
// where recursive is set, can be mounted with the owners of a user namespace, whose
// path is given.
type Mappable func(namespace, source string, recursive bool) bool

// Apply adds the edits to a container's specification, which they win over: a
// variable, device or mount in the same place is replaced. A bind mount shows its
// files as the user namespace's own, if mappable says that what is at its source can
// be: the driver's libraries can, a node that stands for what is not there cannot.
// Nil edits change nothing.
func (e *Edits) Apply(s *specs.Spec, mappable Mappable) {
	if e == nil {
		return
	}
	for _, kv := range e.env {
		edit.SetEnv(s.Process, kv)
	}
	for _, d := range e.devices {
		addDevice(s, d)
	}
	for _, m := range e.mounts {
		m.Options = slices.Clone(m.Options)
		if ns := userNamespace(s); m.Type == "bind" && ns != nil {
			recursive := slices.Contains(m.Options, "rbind")
			if mappable(ns.Path, m.Source, recursive) {
				mapIDs(&m, recursive)
			}
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
		edit.Allow(s.Linux, n, d.access)
	}
	if userNamespace(s) != nil && d.hostPath != n.Path {
		// No node can be made there, and the runtime would mount the host's of the
		// same name instead.
		edit.DropDevice(s.Linux, n.Path)
		putMount(s, specs.Mount{Destination: n.Path, Source: d.hostPath, Type: "bind", Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
		return
	}
	edit.SetDevice(s.Linux, n)
}

func userNamespace(s *specs.Spec) *specs.LinuxNamespace {
	i := slices.IndexFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace })
	if i < 0 {
		return nil
	}
	return &s.Linux.Namespaces[i]
}

// mapIDs shows the owners of a bind mount as the container's own users.
func mapIDs(m *specs.Mount, recursive bool) {
	switch {
	case slices.Contains(m.Options, "idmap"), slices.Contains(m.Options, "ridmap"):
	case recursive:
		m.Options = append(m.Options, "ridmap")
	default:
		m.Options = append(m.Options, "idmap")
	}
}

// putMount adds a mount in place of one at the same path, after those above it.
func putMount(s *specs.Spec, m specs.Mount) {
	edit.DropMount(s, m.Destination)
	s.Mounts = append(s.Mounts, m)
	edit.SortMounts(s.Mounts)
}

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

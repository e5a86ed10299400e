package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/spec/edit"
)

// mounts lists every mount: the customary ones, then the pod's files, the
// image's volumes and the configured mounts. A later one at the same path
// replaces an earlier one of another group, and parents come before what lies
// below them.
func (b *builder) mounts() error {
	configured, err := b.binds()
	if err != nil {
		return err
	}
	all := b.systemMounts()
	for _, group := range [][]specs.Mount{b.podFiles(), b.volumes(), configured} {
		all = slices.DeleteFunc(all, func(m specs.Mount) bool { return replaced(m.Destination, group) })
		all = append(all, group...)
	}
	edit.SortMounts(all)
	b.spec.Mounts = all
	return nil
}

// replaced tells whether a group has a mount at the destination. One at /dev
// replaces all below it too: the host's /dev comes with them.
func replaced(destination string, group []specs.Mount) bool {
	return slices.ContainsFunc(group, func(m specs.Mount) bool {
		return m.Destination == destination || m.Destination == "/dev" && strings.HasPrefix(destination, "/dev/")
	})
}

func (b *builder) systemMounts() []specs.Mount {
	list := []specs.Mount{
		b.proc(),
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		b.devpts(),
	}
	if !b.inUserNamespace() || b.modes.IPC != cri.NamespaceMode_NODE {
		list = append(list, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
	}
	return append(list, b.sys(), b.cgroup())
}

func (b *builder) inUserNamespace() bool { return b.modes.User == cri.NamespaceMode_POD }

// proc is a new mount, or the host's own where a user namespace may not mount
// the host's process namespace.
func (b *builder) proc() specs.Mount {
	if b.inUserNamespace() && b.modes.PID == cri.NamespaceMode_NODE {
		return specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	return specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}
}

// devpts gives terminals to the group tty, unless the pod's user namespace
// does not map it.
func (b *builder) devpts() specs.Mount {
	options := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	_, gids, own, _ := UserNamespace(b.Pod) // checked by namespaces
	if !own || mapped(gids, 5) {
		options = append(options, "gid=5")
	}
	return specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: options}
}

// sys can be mounted only by the owner of the network namespace: a user
// namespace on the host's network gets the host's.
func (b *builder) sys() specs.Mount {
	m := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", b.access()}}
	if b.inUserNamespace() && b.modes.Network == cri.NamespaceMode_NODE {
		m.Type, m.Source = "bind", "/sys"
		m.Options = append([]string{"rbind"}, m.Options...)
	}
	return m
}

func (b *builder) cgroup() specs.Mount {
	return specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", b.access()}}
}

func (b *builder) access() string {
	if b.privileged() {
		return "rw"
	}
	return "ro"
}

// podFiles are the pod's shared memory and name files.
func (b *builder) podFiles() []specs.Mount {
	access := "rw"
	if b.spec.Root.Readonly {
		access = "ro"
	}
	var out []specs.Mount
	bind := func(source, destination string, options ...string) {
		if source != "" {
			out = append(out, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate"}, options...)})
		}
	}
	bind(b.Shm, "/dev/shm", "rw", "nosuid", "noexec", "nodev")
	bind(b.ResolvConf, "/etc/resolv.conf", access)
	bind(b.Hosts, "/etc/hosts", access)
	bind(b.Hostname, "/etc/hostname", access)
	return out
}

func (b *builder) volumes() []specs.Mount {
	out := make([]specs.Mount, 0, len(b.Volumes))
	for _, v := range b.Volumes {
		out = append(out, specs.Mount{Destination: path.Clean("/" + v.ContainerPath), Type: "bind", Source: v.HostPath, Options: []string{"rbind", "rprivate", "rw"}})
	}
	return out
}

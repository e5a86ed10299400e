package libct

import (
	"fmt"
	"path"
	"slices"
	"strings"

	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime/libct/cgroup"
	"github.com/berth-run/berth/pkg/runtime/libct/mounts"
)

// outside is what the engine puts into a new container in place of libcontainer's
// init, which waits meanwhile: package mounts says why.
type outside struct {
	v1      *cgroup.V1
	rootfs  string
	ownDev  bool // /dev is a tmpfs of the container
	binds   []*configs.Mount
	systems []mounts.Filesystem
	devices mounts.Devices
	view    *configs.Mount // of cgroups
}

// takeOutside takes what can be placed from outside out of the configuration and
// into a hook that runs before all others. In user namespaces and with SELinux'
// labels mounts are another matter, and all stays libcontainer's.
func (e *Engine) takeOutside(c *configs.Config) {
	if e.inside || c.Namespaces.Contains(configs.NEWUSER) || !c.Namespaces.Contains(configs.NEWNS) || c.MountLabel != "" {
		return
	}
	o := &outside{v1: e.v1, rootfs: c.Rootfs}
	o.ownDev = mounts.OwnDev(c.Rootfs) && slices.ContainsFunc(c.Mounts, func(m *configs.Mount) bool { return m.Device == "tmpfs" && m.Destination == "/dev" })
	c.Devices = slices.DeleteFunc(slices.Clone(c.Devices), o.takeDevice)
	all := c.Mounts
	o.takeView(c)
	c.Mounts = slices.DeleteFunc(slices.Clone(all), func(m *configs.Mount) bool { return m == o.view || o.takeSystem(m, all) || o.takeBind(m, all) })
	if len(o.devices) == 0 && len(o.systems) == 0 && len(o.binds) == 0 && o.view == nil {
		return
	}
	hook := configs.NewFunctionHook(func(s *specs.State) error { return o.place(s.Pid) })
	if c.Hooks == nil {
		c.Hooks = configs.Hooks{}
	}
	c.Hooks[configs.Prestart] = slices.Insert(c.Hooks[configs.Prestart], 0, configs.Hook(hook))
}

// place is the hook.
func (o *outside) place(initPID int) error {
	all := []mounts.Placement{o.devices}
	for _, f := range o.systems {
		all = append(all, f)
	}
	defer func() {
		for _, p := range all {
			p.Close()
		}
	}()
	for _, m := range o.binds {
		b, err := mounts.OpenBind(m.Source, m.Destination, bindOptions(m))
		if err != nil {
			return fmt.Errorf("mount %q: %w", m.Destination, err)
		}
		all = append(all, b)
	}
	if o.view != nil {
		v, err := o.v1.OpenView(initPID, o.view.Flags&unix.MS_RDONLY != 0)
		if err != nil {
			return fmt.Errorf("mount %q: %w", o.view.Destination, err)
		}
		all = append(all, v)
	}
	return mounts.Place(initPID, o.rootfs, all)
}

// takeDevice takes nodes right below /dev.
func (o *outside) takeDevice(d *devices.Device) bool {
	types := map[devices.Type]uint32{devices.CharDevice: unix.S_IFCHR, devices.BlockDevice: unix.S_IFBLK, devices.FifoDevice: unix.S_IFIFO}
	kind, known := types[d.Type]
	number, err := d.Mkdev()
	if !o.ownDev || !known || err != nil || path.Dir(d.Path) != "/dev" || path.Clean(d.Path) != d.Path {
		return false
	}
	o.devices = append(o.devices, mounts.Device{Name: path.Base(d.Path), Mode: kind | uint32(d.FileMode), Number: number, UID: int(d.Uid), GID: int(d.Gid)})
	return true
}

// takeSystem takes file systems that are the container's own and need nothing but
// their namespaces, where no mount comes before them in their place or below it.
func (o *outside) takeSystem(m *configs.Mount, all []*configs.Mount) bool {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	inDev := o.ownDev && path.Dir(m.Destination) == "/dev"
	switch {
	case m.Device != "sysfs" && m.Device != "devpts" && m.Device != "mqueue", (m.Device == "sysfs") == inDev,
		m.Flags&^flags != 0, len(m.PropagationFlags) != 0, m.IDMapping != nil, m.Extensions != 0, path.Clean("/"+m.Destination) != m.Destination:
		return false
	}
	for _, other := range all {
		at := path.Clean("/" + other.Destination)
		if other == m || other == o.view { // the view is placed last
			continue
		}
		if within(at, m.Destination) || within(m.Destination, at) && !(inDev && at == "/dev") {
			return false
		}
	}
	if !inDev && !mounts.ReadyFor(o.rootfs, m.Destination) {
		return false
	}
	f := mounts.Filesystem{Type: m.Device, Target: m.Destination, Attributes: attributes(m), InDev: inDev}
	if m.Data != "" {
		f.Options = strings.Split(m.Data, ",")
	}
	o.systems = append(o.systems, f)
	return true
}

// takeBind takes private bind mounts whose places are plain: in the root file
// system, or right below /dev.
func (o *outside) takeBind(m *configs.Mount, all []*configs.Mount) bool {
	const flags = unix.MS_BIND | unix.MS_REC | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	private := func(f int) bool { return f&^unix.MS_REC == unix.MS_PRIVATE }
	switch {
	case m.Device != "bind", m.Flags&^flags != 0, m.Flags&unix.MS_REC == 0, m.RecAttr != nil, m.IDMapping != nil, m.Data != "", m.Extensions != 0,
		len(m.PropagationFlags) == 0, !slices.ContainsFunc(m.PropagationFlags, private), slices.ContainsFunc(m.PropagationFlags, func(f int) bool { return !private(f) }),
		m.Destination == "/", path.Clean("/"+m.Destination) != m.Destination:
		return false
	}
	inDev := o.ownDev && path.Dir(m.Destination) == "/dev"
	for _, other := range all {
		at := path.Clean("/" + other.Destination)
		if other != m && (within(at, m.Destination) || within(m.Destination, at) && !(inDev && at == "/dev")) {
			return false
		}
	}
	if !inDev && !mounts.Ready(o.rootfs, m.Source, m.Destination) {
		return false
	}
	o.binds = append(o.binds, m)
	return true
}

// bindOptions are those of a mount that takeBind took.
func bindOptions(m *configs.Mount) mounts.BindOptions {
	set := attributes(m)
	return mounts.BindOptions{Exact: m.ClearedFlags != 0 || set != 0, Attributes: set, InDev: path.Dir(m.Destination) == "/dev"}
}

// attributes are the flags of a mount in the words of fsmount and mount_setattr.
func attributes(m *configs.Mount) (set uint64) {
	for flag, attribute := range map[int]uint64{unix.MS_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.MS_NOSUID: unix.MOUNT_ATTR_NOSUID, unix.MS_NODEV: unix.MOUNT_ATTR_NODEV, unix.MS_NOEXEC: unix.MOUNT_ATTR_NOEXEC} {
		if m.Flags&flag != 0 {
			set |= attribute
		}
	}
	return set
}

// takeView takes the mount of v1's cgroups, where nothing is mounted over or
// below it.
func (o *outside) takeView(c *configs.Config) {
	at := slices.IndexFunc(c.Mounts, func(m *configs.Mount) bool { return m.Device == "cgroup" && m.Destination == cgroup.ViewAt })
	if at < 0 || !o.v1.Here() || c.Namespaces.Contains(configs.NEWCGROUP) {
		return
	}
	for _, later := range c.Mounts[at+1:] {
		if within(later.Destination, cgroup.ViewAt) || within(cgroup.ViewAt, later.Destination) {
			return
		}
	}
	o.view = c.Mounts[at]
}

// within reports whether p is dir, or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

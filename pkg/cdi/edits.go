package cdi

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/berth-run/berth/pkg/errs"
)

// Edits are what devices add to a container. They are not changed once made.
type Edits struct {
	env        []string
	devices    []device
	mounts     []specs.Mount
	hooks      specs.Hooks
	gids       []uint32
	rdt        *specs.LinuxIntelRdt
	netDevices map[string]specs.LinuxNetDevice
}

// device is a node and where the host has it.
type device struct {
	node     specs.LinuxDevice
	hostPath string
	access   string // to the device by the container's cgroup; empty: none
}

// add turns a specification's words into OCI's.
func (e *Edits) add(from *cdispec.ContainerEdits) error {
	for _, kv := range from.Env {
		if strings.ContainsRune(kv, 0) {
			return fmt.Errorf("variable %q has a zero byte: %w", kv, errs.Invalid)
		}
		e.env = append(e.env, kv)
	}
	for _, d := range from.DeviceNodes {
		node, err := resolve(d)
		if err != nil {
			return fmt.Errorf("device node %s: %w", d.Path, err)
		}
		e.devices = append(e.devices, node)
	}
	for _, m := range from.Mounts {
		mount, err := bind(m)
		if err != nil {
			return fmt.Errorf("mount of %s at %q: %w", m.HostPath, m.ContainerPath, err)
		}
		e.mounts = append(e.mounts, mount)
	}
	for _, h := range from.Hooks {
		if err := e.addHook(h); err != nil {
			return fmt.Errorf("hook %s %q: %w", h.HookName, h.Path, err)
		}
	}
	for _, d := range from.NetDevices {
		if e.netDevices == nil {
			e.netDevices = map[string]specs.LinuxNetDevice{}
		}
		e.netDevices[d.HostInterfaceName] = specs.LinuxNetDevice{Name: d.Name}
	}
	if r := from.IntelRdt; r != nil {
		e.rdt = &specs.LinuxIntelRdt{
			ClosID: r.ClosID, L3CacheSchema: r.L3CacheSchema, MemBwSchema: r.MemBwSchema, Schemata: r.Schemata, EnableMonitoring: r.EnableMonitoring,
		}
	}
	e.gids = append(e.gids, from.AdditionalGIDs...)
	return nil
}

// noAccess is CDI's word for a node that the container may not open.
const noAccess = "none"

// resolve completes a device node by what the host has, as CDI's library does, but
// each time: that one keeps numbers, which another boot or driver changes.
func resolve(d *cdispec.DeviceNode) (device, error) {
	out := device{
		node: specs.LinuxDevice{
			Path: path.Clean(d.Path), Type: d.Type, Major: d.Major, Minor: d.Minor, FileMode: d.FileMode, UID: d.UID, GID: d.GID,
		},
		hostPath: cmp.Or(d.HostPath, d.Path),
		access:   cmp.Or(d.Permissions, "rwm"),
	}
	if d.Permissions == noAccess {
		out.access = ""
	}
	if d.Type == "u" { // another name of c
		out.node.Type = "c"
	}
	if !fit(out.node.Path) || !fit(out.hostPath) {
		return out, fmt.Errorf("the host's %q: paths must be absolute: %w", out.hostPath, errs.Invalid)
	}
	complete := out.node.Type != "" && (d.Major != 0 || d.Type == "p")
	kind, st, err := stat(out.hostPath)
	if err != nil {
		if complete {
			return out, nil // the specification says all, and may know better
		}
		return out, err
	}
	if out.node.FileMode == nil {
		mode := os.FileMode(st.Mode & 0o777)
		out.node.FileMode = &mode
	}
	if complete {
		return out, nil
	}
	if out.node.Type != "" && out.node.Type != kind {
		return out, fmt.Errorf("%s is of type %q, not %q: %w", out.hostPath, kind, out.node.Type, errs.Invalid)
	}
	out.node.Type = kind
	if kind != "p" {
		out.node.Major, out.node.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return out, nil
}

// stat returns the type of a device node in OCI's words.
func stat(path string) (kind string, st unix.Stat_t, err error) {
	if err = unix.Stat(path, &st); err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errs.NotFound, err)
		}
		return "", st, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return "c", st, nil
	case unix.S_IFBLK:
		return "b", st, nil
	case unix.S_IFIFO:
		return "p", st, nil
	}
	return "", st, fmt.Errorf("%s is no device node: %w", path, errs.Invalid)
}

// bind is a mount of the host's; one that says no type is a bind mount.
func bind(m *cdispec.Mount) (specs.Mount, error) {
	out := specs.Mount{Destination: path.Clean(m.ContainerPath), Source: m.HostPath, Type: m.Type, Options: slices.Clone(m.Options)}
	isBind := slices.Contains(out.Options, "bind") || slices.Contains(out.Options, "rbind")
	if !isBind && (m.Type == "" || m.Type == "bind") {
		isBind = true
		out.Options = append(out.Options, "rbind")
	}
	if isBind {
		out.Type = "bind"
	}
	if !fit(out.Destination) || isBind && !fit(out.Source) {
		return out, fmt.Errorf("paths must be absolute: %w", errs.Invalid)
	}
	return out, nil
}

// fit tells whether a path is absolute, not the root, and can be one.
func fit(p string) bool { return path.IsAbs(p) && path.Clean(p) != "/" && !strings.ContainsRune(p, 0) }

func (e *Edits) addHook(h *cdispec.Hook) error {
	if !path.IsAbs(h.Path) {
		return fmt.Errorf("the path must be absolute: %w", errs.Invalid)
	}
	list := map[string]*[]specs.Hook{
		"prestart":        &e.hooks.Prestart, //nolint:staticcheck // vendors still write it
		"createRuntime":   &e.hooks.CreateRuntime,
		"createContainer": &e.hooks.CreateContainer,
		"startContainer":  &e.hooks.StartContainer,
		"poststart":       &e.hooks.Poststart,
		"poststop":        &e.hooks.Poststop,
	}[h.HookName]
	if list == nil {
		return fmt.Errorf("there is no such hook: %w", errs.Unsupported)
	}
	*list = append(*list, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
	return nil
}

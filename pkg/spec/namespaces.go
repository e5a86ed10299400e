package spec

import (
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// Modes are the namespace modes that hold for one pod or container.
type Modes struct {
	Network, PID, IPC, User cri.NamespaceMode
}

// NamespaceModes joins the options of a pod and a container. Network, IPC and
// user namespaces are the pod's: CRI has no container that leaves them. Only
// the PID namespace differs within a pod. A nil container means the pod alone.
func NamespaceModes(p *cri.PodSandboxConfig, c *cri.ContainerConfig) Modes {
	pod := p.GetLinux().GetSecurityContext().GetNamespaceOptions()
	m := Modes{Network: pod.GetNetwork(), PID: pod.GetPid(), IPC: pod.GetIpc(), User: cri.NamespaceMode_NODE}
	if u := pod.GetUsernsOptions(); u != nil {
		m.User = u.GetMode()
	}
	if own := c.GetLinux().GetSecurityContext().GetNamespaceOptions(); own != nil {
		m.PID = own.GetPid()
	}
	return m
}

// UserNamespace returns the mappings of a pod's own user namespace, and
// whether it has one.
func UserNamespace(p *cri.PodSandboxConfig) (uid, gid []specs.LinuxIDMapping, enabled bool, err error) {
	u := p.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if u == nil {
		return nil, nil, false, nil
	}
	switch u.GetMode() {
	case cri.NamespaceMode_NODE:
		if len(u.GetUids()) > 0 || len(u.GetGids()) > 0 {
			return nil, nil, false, fmt.Errorf("user namespace: mappings without a namespace: %w", errs.Invalid)
		}
		return nil, nil, false, nil
	case cri.NamespaceMode_POD:
	default:
		return nil, nil, false, fmt.Errorf("user namespace of mode %s: %w", u.GetMode(), errs.Invalid)
	}
	if uid, err = mappings(u.GetUids()); err != nil {
		return nil, nil, false, fmt.Errorf("user namespace uids: %w", err)
	}
	if gid, err = mappings(u.GetGids()); err != nil {
		return nil, nil, false, fmt.Errorf("user namespace gids: %w", err)
	}
	if len(uid) == 0 || len(gid) == 0 {
		return nil, nil, false, fmt.Errorf("user namespace without mappings: %w", errs.Invalid)
	}
	return uid, gid, true, nil
}

// maxMappings is the kernel's bound since Linux 4.15.
const maxMappings = 340

func mappings(in []*cri.IDMapping) ([]specs.LinuxIDMapping, error) {
	if len(in) > maxMappings {
		return nil, fmt.Errorf("%d mappings: %w", len(in), errs.Invalid)
	}
	out := make([]specs.LinuxIDMapping, 0, len(in))
	for _, m := range in {
		last := uint64(max(m.GetHostId(), m.GetContainerId())) + uint64(m.GetLength())
		if m.GetLength() == 0 || last > math.MaxUint32 {
			return nil, fmt.Errorf("mapping %d:%d:%d is empty or too long: %w", m.GetContainerId(), m.GetHostId(), m.GetLength(), errs.Invalid)
		}
		next := specs.LinuxIDMapping{ContainerID: m.GetContainerId(), HostID: m.GetHostId(), Size: m.GetLength()}
		if slices.ContainsFunc(out, func(o specs.LinuxIDMapping) bool { return overlap(o, next) }) {
			return nil, fmt.Errorf("mapping %d:%d:%d overlaps another: %w", m.GetContainerId(), m.GetHostId(), m.GetLength(), errs.Invalid)
		}
		out = append(out, next)
	}
	return out, nil
}

// overlap tells whether two mappings have an id in common, inside or outside.
func overlap(a, b specs.LinuxIDMapping) bool {
	meet := func(a, aSize, b, bSize uint32) bool { return a < b+bSize && b < a+aSize }
	return meet(a.ContainerID, a.Size, b.ContainerID, b.Size) || meet(a.HostID, a.Size, b.HostID, b.Size)
}

// mapped tells whether id inside the namespace stands for any outside.
func mapped(maps []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return true
		}
	}
	return false
}

func (b *builder) namespaces() error {
	b.add(specs.MountNamespace, "")
	b.shared(specs.NetworkNamespace, b.modes.Network)
	b.shared(specs.IPCNamespace, b.modes.IPC)
	b.shared(specs.UTSNamespace, b.modes.Network)
	if err := b.pidNamespace(); err != nil {
		return err
	}
	// Version 1 has nothing to hide that the bind mounts do not hide already,
	// and tools there expect the host's paths.
	if b.Host.CgroupV2 && !b.privileged() {
		b.add(specs.CgroupNamespace, "")
	}
	return b.userNamespace()
}

// shared joins the pod's namespace, or makes an own one, or stays on the host.
func (b *builder) shared(kind specs.LinuxNamespaceType, mode cri.NamespaceMode) {
	if mode != cri.NamespaceMode_NODE {
		b.add(kind, b.Namespaces[kind])
	}
}

func (b *builder) pidNamespace() error {
	switch b.modes.PID {
	case cri.NamespaceMode_NODE:
	case cri.NamespaceMode_CONTAINER:
		b.add(specs.PIDNamespace, "")
	case cri.NamespaceMode_POD:
		b.add(specs.PIDNamespace, b.Namespaces[specs.PIDNamespace])
	case cri.NamespaceMode_TARGET:
		if b.TargetPIDNS == "" {
			return fmt.Errorf("process namespace of mode TARGET without a target: %w", errs.Invalid)
		}
		b.add(specs.PIDNamespace, b.TargetPIDNS)
	default:
		return fmt.Errorf("process namespace of mode %s: %w", b.modes.PID, errs.Invalid)
	}
	return nil
}

func (b *builder) userNamespace() error {
	uid, gid, enabled, err := UserNamespace(b.Pod)
	if err != nil || !enabled {
		return err
	}
	if !b.Host.UserNamespaces {
		return fmt.Errorf("user namespaces: %w", errs.Unsupported)
	}
	if b.privileged() {
		return fmt.Errorf("privileged container in a user namespace: %w", errs.Invalid)
	}
	path := b.Namespaces[specs.UserNamespace]
	b.add(specs.UserNamespace, path)
	if path == "" { // a namespace that is joined has its mappings already
		b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = uid, gid
	}
	return nil
}

func (b *builder) add(kind specs.LinuxNamespaceType, path string) {
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

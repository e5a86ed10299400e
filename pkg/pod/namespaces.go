package pod

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/spec"
)

type addresses = []netip.Addr

func networkMode(c *cri.PodSandboxConfig) cri.NamespaceMode {
	return spec.NamespaceModes(c, nil).Network
}

// checkModes refuses modes that no pod can have: TARGET is a container's.
func checkModes(o *cri.NamespaceOption) error {
	for _, mode := range []cri.NamespaceMode{o.GetNetwork(), o.GetPid(), o.GetIpc()} {
		if mode < cri.NamespaceMode_POD || mode > cri.NamespaceMode_NODE {
			return fmt.Errorf("pod with a namespace of mode %s: %w", mode, errs.Invalid)
		}
	}
	if o.GetTargetId() != "" {
		return fmt.Errorf("pod with a target, %s: %w", o.GetTargetId(), errs.Invalid)
	}
	return nil
}

// checkOwn refuses a container that asks for another namespace than its pod
// has, where that is the pod's to choose. POD is the pod's, whatever it is.
func checkOwn(p *cri.PodSandboxConfig, c *cri.ContainerConfig) error {
	own, is := c.GetLinux().GetSecurityContext().GetNamespaceOptions(), spec.NamespaceModes(p, nil)
	for kind, mode := range map[string][2]cri.NamespaceMode{"network": {own.GetNetwork(), is.Network}, "IPC": {own.GetIpc(), is.IPC}} {
		if mode[0] != cri.NamespaceMode_POD && mode[0] != mode[1] {
			return fmt.Errorf("%s namespace of mode %s: the pod's is %s: %w", kind, mode[0], mode[1], errs.Invalid)
		}
	}
	if u := own.GetUsernsOptions(); u != nil && u.GetMode() != is.User {
		return fmt.Errorf("user namespace of mode %s: the pod's is %s: %w", u.GetMode(), is.User, errs.Invalid)
	}
	return nil
}

// request says what berth-runtime makes for the pod, and notes in p where.
func (s *Service) request(p *Sandbox) (runtime.PodRequest, error) {
	r := runtime.PodRequest{ID: p.ID}
	uid, gid, userns, err := spec.UserNamespace(p.Config)
	if err != nil {
		return r, err
	}
	if r.Sysctls, err = spec.PodSysctls(p.Config, s.d.DefaultSysctls); err != nil {
		return r, err
	}
	parent, err := spec.CgroupParent(cgroupParent(p, s.d.CgroupDriver), s.d.CgroupDriver)
	if err != nil {
		return r, err
	}
	if p.Config.GetLinux().GetCgroupParent() == "" {
		r.CgroupParent = parent
	}
	p.namespaces = map[specs.LinuxNamespaceType]string{}
	modes := spec.NamespaceModes(p.Config, nil)
	if userns {
		r.UIDMappings, r.GIDMappings = uid, gid
		p.namespaces[specs.UserNamespace] = s.pin(p.ID, "user")
	}
	if modes.Network != cri.NamespaceMode_NODE {
		p.NetNS = s.netns(p.ID)
		p.namespaces[specs.NetworkNamespace] = p.NetNS
		p.namespaces[specs.UTSNamespace] = s.pin(p.ID, "uts")
		r.Hostname = hostname(p)
	}
	if modes.IPC == cri.NamespaceMode_POD {
		p.namespaces[specs.IPCNamespace] = s.pin(p.ID, "ipc")
	}
	if modes.PID == cri.NamespaceMode_POD {
		p.namespaces[specs.PIDNamespace] = s.pin(p.ID, "pid")
		r.InitCgroup = spec.CgroupsPath(parent, p.ID, s.d.CgroupDriver)
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.IPCNamespace, specs.PIDNamespace} {
		if path := p.namespaces[kind]; path != "" {
			r.Namespaces = append(r.Namespaces, runtime.PodNamespace{Type: kind, Path: path})
		}
	}
	return r, nil
}

// hostname is what the pod calls itself: the node's name in the host's UTS
// namespace, else its own. One that is given none gets its id, as people know it
// from Docker.
func hostname(p *Sandbox) string {
	if networkMode(p.Config) == cri.NamespaceMode_NODE {
		name, _ := os.Hostname() // empty where the kernel has none set
		return name
	}
	return cmp.Or(p.Config.GetHostname(), p.ID[:12])
}

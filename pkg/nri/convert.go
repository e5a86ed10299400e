package nri

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/pod"
)

// podOf describes a pod. It has no process, and so no pid.
func podOf(p *pod.Sandbox) *api.PodSandbox {
	m, linux := p.Config.GetMetadata(), p.Config.GetLinux()
	out := &api.PodSandbox{
		Id: p.ID, Name: m.GetName(), Uid: m.GetUid(), Namespace: m.GetNamespace(), RuntimeHandler: p.Handler,
		Labels: maps.Clone(p.Config.GetLabels()), Annotations: maps.Clone(p.Config.GetAnnotations()),
		Linux: &api.LinuxPodSandbox{
			PodOverhead: nriLimits(linux.GetOverhead()), PodResources: nriLimits(linux.GetResources()), CgroupParent: linux.GetCgroupParent(),
		},
	}
	for kind, path := range p.Namespaces() {
		out.Linux.Namespaces = append(out.Linux.Namespaces, &api.LinuxNamespace{Type: string(kind), Path: path})
	}
	slices.SortFunc(out.Linux.Namespaces, func(a, b *api.LinuxNamespace) int { return strings.Compare(a.Type, b.Type) })
	for _, ip := range p.IPs {
		out.Ips = append(out.Ips, ip.String())
	}
	return out
}

// pod describes a pod by its id alone where it is not in the table: it is being
// made or has just gone.
func (s *Service) pod(id string) *api.PodSandbox {
	if p, err := s.node.Pods.Get(id); err == nil {
		return podOf(p)
	}
	return &api.PodSandbox{Id: id, Linux: &api.LinuxPodSandbox{}}
}

var states = map[container.State]api.ContainerState{
	container.Created: api.ContainerState_CONTAINER_CREATED,
	container.Running: api.ContainerState_CONTAINER_RUNNING,
	container.Exited:  api.ContainerState_CONTAINER_STOPPED,
}

// containerOf describes a container, by its specification too: sp, or the recorded
// one where sp is nil. One whose records are gone is described without.
func (s *Service) containerOf(c *container.Container, sp *specs.Spec) *api.Container {
	st := c.Status
	out := &api.Container{
		Id: c.ID, PodSandboxId: c.PodID, Name: c.Config.GetMetadata().GetName(), State: states[st.State], Pid: uint32(st.PID),
		Labels: maps.Clone(c.Config.GetLabels()), Annotations: map[string]string{},
		CreatedAt: nanoseconds(c.CreatedAt), StartedAt: nanoseconds(st.StartedAt), FinishedAt: nanoseconds(st.FinishedAt),
		ExitCode: st.ExitCode, StatusReason: st.Reason, StatusMessage: valid(st.Message),
		User: userOf(c.User.GetLinux()), Image: s.imageOf(c), Linux: &api.LinuxContainer{},
	}
	for _, d := range c.Config.GetCDIDevices() {
		out.CDIDevices = append(out.CDIDevices, &api.CDIDevice{Name: d.GetName()})
	}
	if sp == nil {
		sp, _ = s.node.Containers.Spec(c.ID) // nil of one that is being removed
	}
	if sp != nil {
		specOf(sp, out)
	}
	maps.Copy(out.Annotations, c.Config.GetAnnotations())
	inForce(out.Linux, st.Resources)
	if p := c.Config.GetLinux().GetSecurityContext().GetSeccomp(); p != nil {
		out.Linux.SeccompProfile = &api.SecurityProfile{ProfileType: api.SecurityProfile_ProfileType(p.GetProfileType()), LocalhostRef: p.GetLocalhostRef()}
	}
	return out
}

// specOf describes what a specification says.
func specOf(sp *specs.Spec, out *api.Container) {
	maps.Copy(out.Annotations, sp.Annotations)
	out.Mounts, out.Hooks = api.FromOCIMounts(sp.Mounts), api.FromOCIHooks(sp.Hooks)
	if p := sp.Process; p != nil {
		out.Args = slices.Clone(p.Args)
		for _, kv := range p.Env {
			out.Env = append(out.Env, valid(kv))
		}
		for _, l := range p.Rlimits {
			out.Rlimits = append(out.Rlimits, &api.POSIXRlimit{Type: l.Type, Hard: l.Hard, Soft: l.Soft})
		}
		out.Linux.OomScoreAdj = api.Int(p.OOMScoreAdj)
		out.Linux.IoPriority = api.FromOCILinuxIOPriority(p.IOPriority)
		if p.Scheduler != nil {
			out.Linux.Scheduler = api.FromOCILinuxScheduler(p.Scheduler)
		}
	}
	l := sp.Linux
	if l == nil {
		return
	}
	out.Linux.Namespaces, out.Linux.Devices = api.FromOCILinuxNamespaces(l.Namespaces), api.FromOCILinuxDevices(l.Devices)
	out.Linux.Resources, out.Linux.CgroupsPath = api.FromOCILinuxResources(l.Resources, sp.Annotations), l.CgroupsPath
	out.Linux.Sysctl, out.Linux.NetDevices = maps.Clone(l.Sysctl), api.FromOCILinuxNetDevices(l.NetDevices)
	if l.Seccomp != nil {
		out.Linux.SeccompPolicy = api.FromOCILinuxSeccomp(l.Seccomp)
	}
	if r := l.IntelRdt; r != nil {
		out.Linux.Rdt = &api.LinuxRdt{ClosId: api.String(r.ClosID), Schemata: api.RepeatedString(r.Schemata), EnableMonitoring: api.Bool(r.EnableMonitoring)}
	}
}

func userOf(u *cri.LinuxContainerUser) *api.User {
	out := &api.User{Uid: uint32(u.GetUid()), Gid: uint32(u.GetGid())}
	for _, g := range u.GetSupplementalGroups() {
		out.AdditionalGids = append(out.AdditionalGids, uint32(g))
	}
	return out
}

func (s *Service) imageOf(c *container.Container) *api.Image {
	asked := c.Config.GetImage()
	out := &api.Image{Name: asked.GetUserSpecifiedImage(), ConfigDigest: c.ImageID}
	if out.Name == "" {
		out.Name = asked.GetImage()
	}
	if i, err := s.node.Images.Get(c.ImageID); err == nil { // it may have been removed
		out.Digest = i.Digest.String()
	}
	return out
}

// nanoseconds is 0 for a time that has not come.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// valid makes text of bytes, which an environment may hold: messages of NRI cannot.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

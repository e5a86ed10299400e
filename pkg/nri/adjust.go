package nri

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/spec"
	"github.com/berth-run/berth/pkg/spec/edit"
)

// adjust changes a specification as plugins want it and returns the limits in
// force then, of which old are those of the configuration. A key with a minus
// before it is taken away. It fails for what it cannot do.
func adjust(sp *specs.Spec, a *api.ContainerAdjustment, old *cri.LinuxContainerResources, h host.Facts) (*cri.LinuxContainerResources, error) {
	l := a.GetLinux()
	if err := adjustAnnotations(sp, a.GetAnnotations()); err != nil {
		return nil, err
	}
	adjustProcess(sp.Process, a, h)
	adjustHooks(sp, a.GetHooks())
	adjustDevices(sp.Linux, l.GetDevices())
	if err := adjustNamespaces(sp.Linux, l.GetNamespaces()); err != nil {
		return nil, err
	}
	sp.Linux.CgroupsPath = cmp.Or(l.GetCgroupsPath(), sp.Linux.CgroupsPath)
	sp.Linux.Sysctl = adjustMap(sp.Linux.Sysctl, l.GetSysctl(), func(v string) string { return v })
	sp.Linux.NetDevices = adjustMap(sp.Linux.NetDevices, l.GetNetDevices(), (*api.LinuxNetDevice).ToOCI)
	if p := l.GetSeccompPolicy(); p != nil {
		sp.Linux.Seccomp = seccomp(p)
	}
	if p := l.GetMemoryPolicy(); p != nil {
		sp.Linux.MemoryPolicy = p.ToOCI()
	}
	adjustRDT(sp.Linux, l)
	if err := adjustMounts(sp, a.GetMounts()); err != nil {
		return nil, err
	}
	limits, err := adjustLimits(sp.Linux, l.GetResources(), old, h)
	if err == nil && l.GetOomScoreAdj() != nil {
		limits.OomScoreAdj = int64(*sp.Process.OOMScoreAdj)
	}
	return limits, err
}

// adjustMap takes keys away, then sets others: one of both is set.
func adjustMap[V, W any](m map[string]V, changes map[string]W, value func(W) V) map[string]V {
	for key := range changes {
		if name, gone := api.IsMarkedForRemoval(key); gone {
			delete(m, name)
		}
	}
	for key, w := range changes {
		if _, gone := api.IsMarkedForRemoval(key); gone {
			continue
		}
		if m == nil {
			m = map[string]V{}
		}
		m[key] = value(w)
	}
	return m
}

// adjustAnnotations leaves systemd's unit properties alone: through them a
// container could do anything (CRI-O's CVE-2024-3154).
func adjustAnnotations(sp *specs.Spec, changes map[string]string) error {
	for key := range changes {
		if strings.HasPrefix(key, "org.systemd.property.") {
			return fmt.Errorf("annotation %s: %w", key, errs.Unsupported)
		}
	}
	sp.Annotations = adjustMap(sp.Annotations, changes, func(v string) string { return v })
	return nil
}

func adjustProcess(p *specs.Process, a *api.ContainerAdjustment, h host.Facts) {
	adjustEnv(p, a.GetEnv())
	if len(a.GetArgs()) > 0 {
		p.Args = slices.Clone(a.GetArgs())
	}
	for _, r := range a.GetRlimits() {
		p.Rlimits = slices.DeleteFunc(p.Rlimits, func(have specs.POSIXRlimit) bool { return have.Type == r.GetType() })
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: r.GetType(), Hard: r.GetHard(), Soft: r.GetSoft()})
	}
	l := a.GetLinux()
	if score := l.GetOomScoreAdj(); score != nil {
		n := spec.OOMScoreAdj(score.GetValue(), h, spec.Options{})
		p.OOMScoreAdj = &n
	}
	if prio := l.GetIoPriority(); prio != nil {
		if p.IOPriority = prio.ToOCI(); p.IOPriority.Class == "" {
			p.IOPriority = nil
		}
	}
	if s := l.GetScheduler(); s != nil {
		p.Scheduler = s.ToOCI()
	}
}

// adjustEnv replaces variables where they are, and adds others at the end.
func adjustEnv(p *specs.Process, changes []*api.KeyValue) {
	for _, c := range changes {
		if name, gone := c.IsMarkedForRemoval(); gone {
			p.Env = slices.DeleteFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		} else {
			edit.SetEnv(p, c.ToOCI())
		}
	}
}

func adjustHooks(sp *specs.Spec, h *api.Hooks) {
	if h == nil {
		return
	}
	if sp.Hooks == nil {
		sp.Hooks = &specs.Hooks{}
	}
	add := func(to *[]specs.Hook, hooks []*api.Hook) {
		for _, hook := range hooks {
			*to = append(*to, hook.ToOCI())
		}
	}
	add(&sp.Hooks.Prestart, h.GetPrestart()) //nolint:staticcheck // SA1019: NRI has them, and so have old plugins
	add(&sp.Hooks.CreateRuntime, h.GetCreateRuntime())
	add(&sp.Hooks.CreateContainer, h.GetCreateContainer())
	add(&sp.Hooks.StartContainer, h.GetStartContainer())
	add(&sp.Hooks.Poststart, h.GetPoststart())
	add(&sp.Hooks.Poststop, h.GetPoststop())
}

// adjustDevices adds nodes, each with leave to use it.
func adjustDevices(l *specs.Linux, changes []*api.LinuxDevice) {
	for _, d := range changes {
		name, gone := d.IsMarkedForRemoval()
		if gone {
			edit.DropDevice(l, name)
			continue
		}
		edit.SetDevice(l, d.ToOCI())
		edit.Allow(l, d.ToOCI(), d.AccessString())
	}
}

var namespaces = []specs.LinuxNamespaceType{
	specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
	specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace,
}

func adjustNamespaces(l *specs.Linux, changes []*api.LinuxNamespace) error {
	for _, n := range changes {
		name, gone := n.IsMarkedForRemoval()
		kind := specs.LinuxNamespaceType(name)
		if !slices.Contains(namespaces, kind) {
			return fmt.Errorf("namespace %q: %w", name, errs.Invalid)
		}
		l.Namespaces = slices.DeleteFunc(l.Namespaces, func(have specs.LinuxNamespace) bool { return have.Type == kind })
		if !gone {
			l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: kind, Path: n.GetPath()})
		}
	}
	return nil
}

func seccomp(p *api.LinuxSeccomp) *specs.LinuxSeccomp {
	out := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(p.GetDefaultAction()), Syscalls: api.ToOCILinuxSyscalls(p.GetSyscalls()),
		ListenerPath: p.GetListenerPath(), ListenerMetadata: p.GetListenerMetadata(),
	}
	if errno := p.GetDefaultErrno(); errno != nil {
		n := uint(errno.GetValue())
		out.DefaultErrnoRet = &n
	}
	for _, arch := range p.GetArchitectures() {
		out.Architectures = append(out.Architectures, specs.Arch(arch))
	}
	for _, flag := range p.GetFlags() {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(flag))
	}
	return out
}

// adjustRDT sets the class of cache and memory bandwidth: one that exists, by its
// name, and what is in it.
func adjustRDT(l *specs.Linux, a *api.LinuxContainerAdjustment) {
	if class := a.GetResources().GetRdtClass(); class != nil {
		l.IntelRdt = nil
		if name := class.GetValue(); name != "" {
			l.IntelRdt = &specs.LinuxIntelRdt{ClosID: name}
		}
	}
	r := a.GetRdt()
	if r.GetRemove() {
		l.IntelRdt = nil
	}
	if r.GetClosId() == nil && r.GetSchemata() == nil && r.GetEnableMonitoring() == nil {
		return
	}
	if l.IntelRdt == nil {
		l.IntelRdt = &specs.LinuxIntelRdt{}
	}
	if id := r.GetClosId(); id != nil {
		l.IntelRdt.ClosID = id.GetValue()
	}
	if s := r.GetSchemata(); s != nil {
		l.IntelRdt.Schemata = slices.Clone(s.GetValue())
	}
	if m := r.GetEnableMonitoring(); m != nil {
		l.IntelRdt.EnableMonitoring = m.GetValue()
	}
}

// adjustMounts adds mounts, the outer ones before those in them.
func adjustMounts(sp *specs.Spec, changes []*api.Mount) error {
	for _, m := range changes {
		name, gone := m.IsMarkedForRemoval()
		name = path.Clean(name)
		if !path.IsAbs(name) || name == "/" {
			return fmt.Errorf("mount at %q: %w", name, errs.Invalid)
		}
		edit.DropMount(sp, name)
		if gone {
			continue
		}
		mount, err := mountOf(sp, m)
		if err != nil {
			return fmt.Errorf("mount at %q: %w", name, err)
		}
		sp.Mounts = append(sp.Mounts, mount)
	}
	if len(changes) > 0 {
		edit.SortMounts(sp.Mounts)
	}
	return nil
}

// mountOf checks that the host's mount can give the propagation that is asked
// for, and opens the container's root file system to it.
func mountOf(sp *specs.Spec, m *api.Mount) (specs.Mount, error) {
	propagation := ""
	mount := m.ToOCI(&propagation)
	if slices.Contains(mount.Options, api.SELinuxRelabel) {
		if sp.Process.SelinuxLabel != "" {
			return mount, fmt.Errorf("relabelling: %w", errs.Unsupported)
		}
		mount.Options = slices.DeleteFunc(mount.Options, func(o string) bool { return o == api.SELinuxRelabel })
	}
	if propagation != "rshared" && propagation != "rslave" {
		return mount, nil
	}
	p, err := host.System{}.Propagation(mount.Source)
	if err != nil {
		return mount, err
	}
	if !p.Shared && (propagation == "rshared" || !p.Slave) {
		return mount, fmt.Errorf("%s lies on %s, whose mounts do not propagate: %w", mount.Source, p.MountPoint, errs.Invalid)
	}
	if sp.Linux.RootfsPropagation != "rshared" {
		sp.Linux.RootfsPropagation = propagation
	}
	return mount, nil
}

// adjustLimits sets the limits that plugins name: CRI's as if kubelet had, and
// those that CRI has no words for.
func adjustLimits(l *specs.Linux, r *api.LinuxResources, old *cri.LinuxContainerResources, h host.Facts) (*cri.LinuxContainerResources, error) {
	if class := r.GetBlockioClass().GetValue(); class != "" {
		return nil, fmt.Errorf("class %q of block I/O: none are configured: %w", class, errs.Unsupported)
	}
	if hasObsolete(r.GetMemory()) {
		return nil, fmt.Errorf("limit on %s: %w", obsolete, errs.Unsupported)
	}
	core, err := coreLimits(r)
	if err != nil {
		return nil, err
	}
	merged, limits, err := spec.Update(old, core, h)
	if err != nil {
		return nil, err
	}
	to := l.Resources
	setCPU(to, limits.CPU, r.GetCpu())
	setMemory(to, limits.Memory, r.GetMemory())
	for _, p := range limits.HugepageLimits {
		to.HugepageLimits = slices.DeleteFunc(to.HugepageLimits, func(have specs.LinuxHugepageLimit) bool { return have.Pagesize == p.Pagesize })
		to.HugepageLimits = append(to.HugepageLimits, p)
	}
	to.Unified = adjustMap(to.Unified, limits.Unified, func(v string) string { return v })
	if p := r.GetPids(); p != nil {
		to.Pids = &specs.LinuxPids{}
		if n := p.GetLimit(); n > api.UnlimitedPidsLimit {
			to.Pids.Limit = &n
		}
	}
	for _, d := range r.GetDevices() {
		to.Devices = append(to.Devices, specs.LinuxDeviceCgroup{Allow: d.GetAllow(), Type: d.GetType(), Major: d.GetMajor().Get(), Minor: d.GetMinor().Get(), Access: d.GetAccess()})
	}
	return merged, nil
}

func setCPU(to *specs.LinuxResources, limits *specs.LinuxCPU, r *api.LinuxCPU) {
	runtime, period := r.GetRealtimeRuntime(), r.GetRealtimePeriod()
	if limits == nil && runtime == nil && period == nil {
		return
	}
	if to.CPU == nil {
		to.CPU = &specs.LinuxCPU{}
	}
	if limits != nil {
		to.CPU.Shares, to.CPU.Quota, to.CPU.Period = cmp.Or(limits.Shares, to.CPU.Shares), cmp.Or(limits.Quota, to.CPU.Quota), cmp.Or(limits.Period, to.CPU.Period)
		to.CPU.Cpus, to.CPU.Mems = cmp.Or(limits.Cpus, to.CPU.Cpus), cmp.Or(limits.Mems, to.CPU.Mems)
	}
	to.CPU.RealtimeRuntime, to.CPU.RealtimePeriod = cmp.Or(runtime.Get(), to.CPU.RealtimeRuntime), cmp.Or(period.Get(), to.CPU.RealtimePeriod)
}

func setMemory(to *specs.LinuxResources, limits *specs.LinuxMemory, r *api.LinuxMemory) {
	reservation, swappiness, killer := r.GetReservation(), r.GetSwappiness(), r.GetDisableOomKiller()
	if limits == nil && reservation == nil && swappiness == nil && killer == nil {
		return
	}
	if to.Memory == nil {
		to.Memory = &specs.LinuxMemory{}
	}
	if limits != nil {
		to.Memory.Limit, to.Memory.Swap = cmp.Or(limits.Limit, to.Memory.Limit), cmp.Or(limits.Swap, to.Memory.Swap)
	}
	to.Memory.Reservation = cmp.Or(reservation.Get(), to.Memory.Reservation)
	to.Memory.Swappiness = cmp.Or(swappiness.Get(), to.Memory.Swappiness)
	to.Memory.DisableOOMKiller = cmp.Or(killer.Get(), to.Memory.DisableOOMKiller)
}

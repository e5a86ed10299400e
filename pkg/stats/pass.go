package stats

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/pod"
)

// snapshot is one pass. It does not change.
type snapshot struct {
	at         time.Time
	containers map[string]*cri.ContainerStats
	pods       map[string]*cri.PodSandboxStats
	seen       map[string]bool // what was looked at, even if it was gone by then
}

// pass reads everything once.
func (s *Service) pass(ctx context.Context) (*snapshot, error) {
	pods := ready(s.d.Pods.List())
	by := running(s.d.Containers.List())
	interfaces := make(chan map[string][]counters.Interface, 1)
	go func() { interfaces <- s.d.Interfaces(namespaces(pods)) }() // ends by itself, and pass waits for it
	snap := &snapshot{
		at: time.Now(), containers: map[string]*cri.ContainerStats{}, pods: make(map[string]*cri.PodSandboxStats, len(pods)), seen: seen(pods, by),
	}
	s.layers.begin(snap.at)
	s.mu.Lock()
	s.forget(snap.seen)
	for _, p := range pods {
		s.readPod(ctx, snap, p, by[p.ID])
	}
	s.mu.Unlock()
	s.layers.end(snap.seen)
	found := <-interfaces
	now := time.Now()
	for _, p := range pods {
		if st := snap.pods[p.ID]; st != nil && p.NetNS != "" {
			st.Linux.Network = networkUsage(found[p.NetNS], now)
		}
	}
	s.last.Store(snap)
	return snap, ctx.Err()
}

func ready(all []*pod.Sandbox) []*pod.Sandbox {
	return slices.DeleteFunc(all, func(p *pod.Sandbox) bool { return p.State != pod.Ready })
}

// running returns the containers that run, by pod.
func running(all []*container.Container) map[string][]*container.Container {
	by := map[string][]*container.Container{}
	for _, c := range all {
		if c.Status.State == container.Running {
			by[c.PodID] = append(by[c.PodID], c)
		}
	}
	return by
}

// seen are the ids of all that a pass looks at.
func seen(pods []*pod.Sandbox, by map[string][]*container.Container) map[string]bool {
	ids := make(map[string]bool, 2*len(pods))
	for _, p := range pods {
		ids[p.ID] = true
	}
	for _, all := range by { // those of a pod that is being stopped, too
		for _, c := range all {
			ids[c.ID] = true
		}
	}
	return ids
}

// namespaces are those of pods that have one. What goes through the host's
// interfaces is the node's, and no pod's: kubelet wants no network for such a pod.
func namespaces(pods []*pod.Sandbox) []string {
	var paths []string
	for _, p := range pods {
		if p.NetNS != "" {
			paths = append(paths, p.NetNS)
		}
	}
	return paths
}

// readPod reads a pod and its containers. What is gone by now is left out.
func (s *Service) readPod(ctx context.Context, snap *snapshot, p *pod.Sandbox, containers []*container.Container) {
	groups, err := pod.CgroupsOf(p, s.d.CgroupDriver)
	if err != nil { // Run would have refused it
		return
	}
	u := s.usageOf(s.pods, p.ID, groups.Parent, groups.Own)
	u.own = groups.Own
	out := &cri.PodSandboxStats{Attributes: podAttributes(p), Linux: &cri.LinuxPodSandboxStats{}}
	sum := u.gone
	for _, c := range containers {
		st, read, ok := s.readContainer(ctx, c, groups)
		if !ok {
			retire(&sum, &read)
			continue
		}
		snap.containers[c.ID] = st
		out.Linux.Containers = append(out.Linux.Containers, st)
		add(&sum, read)
	}
	total := sum
	if groups.Own {
		if total, err = s.reader.Read(u.group, cgroup.Brief); err != nil {
			return // the pod is being removed
		}
		total.Pids.Processes = max(total.Pids.Processes, sum.Pids.Processes)
	} else if init := s.initOf(p, groups); init != nil {
		if read, err := s.reader.Read(init, cgroup.Brief); err == nil {
			add(&total, read)
		}
		init.Close()
	}
	now := time.Now()
	out.Linux.Cpu = cpuUsage(&total, now, u.update(total.CPU.Usage, now, p.CreatedAt))
	out.Linux.Memory = memoryUsage(&total, now)
	out.Linux.Io = ioUsage(&total, now)
	out.Linux.Process = &cri.ProcessUsage{Timestamp: now.UnixNano(), ProcessCount: value(total.Pids.Processes)}
	snap.pods[p.ID] = out
}

// initOf is the cgroup of a pod's PID 1, which only a shared process namespace has.
func (s *Service) initOf(p *pod.Sandbox, groups pod.Cgroups) *cgroup.Group {
	options := p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if options == nil || options.GetPid() != cri.NamespaceMode_POD {
		return nil
	}
	g := s.d.Hierarchies.Group(groups.Container(p.ID))
	g.Transient = true
	return g
}

// readContainer reads a running container. Where it has just ended, ok is false and
// read is what it had used before.
func (s *Service) readContainer(ctx context.Context, c *container.Container, groups pod.Cgroups) (st *cri.ContainerStats, read cgroup.Stats, ok bool) {
	u := s.usageOf(s.containers, c.ID, groups.Container(c.ID), true)
	u.podID = c.PodID
	read, err := s.reader.Read(u.group, cgroup.Brief)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			klog.FromContext(ctx).V(4).Info("Cannot read statistics", "container", c.ID, "err", err)
		}
		return nil, u.last, false
	}
	u.last = read
	now := time.Now()
	return &cri.ContainerStats{
		Attributes: containerAttributes(c), Cpu: cpuUsage(&read, now, u.update(read.CPU.Usage, now, c.Status.StartedAt)), Memory: memoryUsage(&read, now),
		Swap: swapUsage(&read, now), Io: ioUsage(&read, now), WritableLayer: s.layers.answer(ctx, c.ID, s.d.LayerRoot),
	}, read, true
}

// usageOf returns what is kept of an id. Where too many files would be open its
// files are opened each time.
func (s *Service) usageOf(all map[string]*usage, id, path string, counted bool) *usage {
	u := all[id]
	if u == nil {
		u = &usage{}
		all[id] = u
	}
	if u.group == nil && counted {
		u.group = s.d.Hierarchies.Group(path)
		u.group.Transient = (len(s.containers)+len(s.pods))*cgroup.FilesPerGroup > s.d.MaxFiles
	}
	return u
}

// forget drops what has not been seen. A pod in a cgroup that others share keeps
// what its containers had used: its counters must not go back.
func (s *Service) forget(seen map[string]bool) {
	for id, u := range s.containers {
		if seen[id] {
			continue
		}
		if p := s.pods[u.podID]; p != nil && !p.own {
			retire(&p.gone, &u.last)
		}
		u.close()
		delete(s.containers, id)
	}
	for id, u := range s.pods {
		if !seen[id] {
			u.close()
			delete(s.pods, id)
		}
	}
}

package stats

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

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
	found, all := s.plan(pods, by)
	s.readAll(all)
	for _, f := range found {
		s.tellPod(ctx, snap, f)
	}
	s.mu.Unlock()
	s.layers.end(snap.seen)
	traffic := <-interfaces
	now := time.Now()
	for _, p := range pods {
		if st := snap.pods[p.ID]; st != nil && p.NetNS != "" {
			st.Linux.Network = networkUsage(traffic[p.NetNS], now)
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

// reading is one cgroup that a pass reads.
type reading struct {
	u     *usage
	group *cgroup.Group
	stats cgroup.Stats
	err   error
	at    time.Time
}

// podReading is what a pass reads of a pod. own is nil where others share its
// cgroup, and init where it has no PID 1.
type podReading struct {
	pod        *pod.Sandbox
	u          *usage
	own, init  *reading
	containers []*container.Container
	readings   []*reading // of containers
}

// plan says what to read.
func (s *Service) plan(pods []*pod.Sandbox, by map[string][]*container.Container) (found []*podReading, all []*reading) {
	for _, p := range pods {
		groups, err := pod.CgroupsOf(p, s.d.CgroupDriver)
		if err != nil { // Run would have refused it
			continue
		}
		f := &podReading{pod: p, u: s.usageOf(s.pods, p.ID, groups.Parent, groups.Own), containers: by[p.ID]}
		f.u.own = groups.Own
		if groups.Own {
			f.own = &reading{u: f.u, group: f.u.group}
			f.own.group.Shallow = true // its containers are counted anyway
			all = append(all, f.own)
		}
		if hasInit(p) {
			if f.u.init == nil {
				f.u.init = s.group(groups.Container(p.ID))
			}
			f.init = &reading{group: f.u.init}
			all = append(all, f.init)
		}
		for _, c := range f.containers {
			path, outside := groups.Of(c)
			u := s.usageOf(s.containers, c.ID, path, true)
			u.podID, u.outside = p.ID, outside
			f.readings = append(f.readings, &reading{u: u, group: u.group})
		}
		all = append(all, f.readings...)
		found = append(found, f)
	}
	return found, all
}

// maxReaders bounds how many read at once: a pass must not take the node.
const maxReaders = 4

// readAll reads on several processors, since who polls waits for it.
func (s *Service) readAll(all []*reading) {
	var next atomic.Int64
	work := func(r *cgroup.Reader) {
		for i := next.Add(1) - 1; int(i) < len(all); i = next.Add(1) - 1 {
			one := all[i]
			one.stats, one.err = r.Read(one.group, cgroup.Brief)
			one.at = time.Now()
		}
	}
	for len(s.readers) < min(runtime.GOMAXPROCS(0), maxReaders) {
		s.readers = append(s.readers, cgroup.NewReader())
	}
	var wg sync.WaitGroup
	for _, r := range s.readers[1:] {
		wg.Go(func() { work(r) })
	}
	work(s.readers[0])
	wg.Wait()
}

// tellPod makes the messages of a pod and its containers. What is gone by now is
// left out.
func (s *Service) tellPod(ctx context.Context, snap *snapshot, f *podReading) {
	out := &cri.PodSandboxStats{Attributes: podAttributes(f.pod), Linux: &cri.LinuxPodSandboxStats{}}
	rest, inside := f.u.gone, uint64(0) // what the pod's own cgroup does not count
	for i, c := range f.containers {
		r := f.readings[i]
		counted := f.own != nil && !r.u.outside
		if r.err != nil { // it has just ended: what it had used still counts
			if !counted {
				retire(&rest, &r.u.last)
			}
			continue
		}
		st := s.tellContainer(ctx, c, r)
		snap.containers[c.ID] = st
		out.Linux.Containers = append(out.Linux.Containers, st)
		if counted {
			inside += r.stats.Pids.Processes
		} else {
			add(&rest, r.stats)
		}
	}
	if f.init != nil && f.init.err == nil {
		if f.own != nil {
			inside += f.init.stats.Pids.Processes
		} else {
			add(&rest, f.init.stats)
		}
	}
	total, now := rest, time.Now()
	if f.own != nil {
		if f.own.err != nil {
			return // the pod is being removed
		}
		f.own.stats.Pids.Processes += inside
		total, now = together(f.own.stats, rest), f.own.at
	}
	out.Linux.Cpu = cpuUsage(&total, now, f.u.update(total.CPU.Usage, now, f.pod.CreatedAt))
	out.Linux.Memory = memoryUsage(&total, now)
	out.Linux.Io = ioUsage(&total, now)
	out.Linux.Process = &cri.ProcessUsage{Timestamp: now.UnixNano(), ProcessCount: value(total.Pids.Processes)}
	snap.pods[f.pod.ID] = out
}

func (s *Service) tellContainer(ctx context.Context, c *container.Container, r *reading) *cri.ContainerStats {
	r.u.last = r.stats
	rate := r.u.update(r.stats.CPU.Usage, r.at, c.Status.StartedAt)
	return &cri.ContainerStats{
		Attributes: containerAttributes(c), Cpu: cpuUsage(&r.stats, r.at, rate), Memory: memoryUsage(&r.stats, r.at),
		Swap: swapUsage(&r.stats, r.at), Io: ioUsage(&r.stats, r.at), WritableLayer: s.layers.answer(ctx, c.ID, s.d.LayerRoot),
	}
}

// hasInit tells whether a pod has a PID 1: only a shared process namespace has.
func hasInit(p *pod.Sandbox) bool {
	options := p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	return options != nil && options.GetPid() == cri.NamespaceMode_POD
}

// group returns a cgroup to be kept. Where too many files would be open its files
// are opened each time.
func (s *Service) group(path string) *cgroup.Group {
	g := s.d.Hierarchies.Group(path)
	g.Transient = (len(s.containers)+2*len(s.pods))*cgroup.FilesPerGroup > s.d.MaxFiles
	return g
}

// usageOf returns what is kept of an id.
func (s *Service) usageOf(all map[string]*usage, id, path string, counted bool) *usage {
	u := all[id]
	if u == nil {
		u = &usage{}
		all[id] = u
	}
	if u.group == nil && counted {
		u.group = s.group(path)
	}
	return u
}

// forget drops what has not been seen. A pod keeps what those of its containers had
// used that its own cgroup has not counted: its counters must not go back.
func (s *Service) forget(seen map[string]bool) {
	for id, u := range s.containers {
		if seen[id] {
			continue
		}
		if p := s.pods[u.podID]; p != nil && (!p.own || u.outside) {
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

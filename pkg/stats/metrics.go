package stats

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/pod"
)

type iface = counters.Interface

// metricsSnapshot is one pass of metrics. It does not change.
type metricsSnapshot struct {
	at   time.Time
	pods []*cri.PodSandboxMetrics
	seen map[string]bool
}

// sample is what the metrics of one container or pod are made of.
type sample struct {
	now, started time.Time
	created      time.Time
	stats        cgroup.Stats
	resources    *cri.LinuxContainerResources
	processes    processes
	written      *cri.FilesystemUsage // nil for a pod
	fs           *fileSystem
	interfaces   []iface
	v2           bool
	disks        *disks
}

func (s *sample) disk(d *cgroup.Device) string { return s.disks.name(d.Major, d.Minor) }

// swapLimit is as cAdvisor has it: with the memory in v1.
func (s *sample) swapLimit() uint64 {
	switch {
	case !s.stats.Swap.Known || s.stats.Swap.Limit == cgroup.Unlimited:
		return 0
	case s.v2:
		return s.stats.Swap.Limit
	}
	return s.stats.Swap.Limit + s.stats.Memory.Limit
}

// shares are what was asked for, since v2 has them in a coarser form.
func (s *sample) shares() uint64 {
	if asked := s.resources.GetCpuShares(); asked > 0 {
		return uint64(asked)
	}
	return s.stats.CPU.Shares
}

// list makes the metrics, with the values of the base labels.
func (s *sample) list(base []string) []*cri.Metric {
	all := make([]*cri.Metric, 0, 2*len(metrics))
	for i := range metrics {
		m := &metrics[i]
		m.values(s, func(v uint64, own ...string) {
			labels := make([]string, 0, len(base)+len(own))
			all = append(all, &cri.Metric{
				Name: m.name, Timestamp: s.now.UnixNano(), MetricType: m.kind, Value: value(v), LabelValues: append(append(labels, base...), own...),
			})
		})
	}
	return all
}

// Metrics returns the metrics of all ready pods and of their running containers.
// They are shared and must not be changed.
func (s *Service) Metrics(ctx context.Context) ([]*cri.PodSandboxMetrics, error) {
	m, err := share(ctx, s.scrape, s.recentMetrics, s.metricsPass)
	if err != nil {
		return nil, err
	}
	return m.pods, nil
}

// recentMetrics returns the last pass, or nil where that would not do.
func (s *Service) recentMetrics() *metricsSnapshot {
	if m := s.scraped.Load(); m != nil && time.Since(m.at) < metricsFor && s.complete(m.seen) {
		return m
	}
	return nil
}

func (s *Service) metricsPass(ctx context.Context) (*metricsSnapshot, error) {
	pods := ready(s.d.Pods.List())
	by := running(s.d.Containers.List())
	snap := &metricsSnapshot{at: time.Now(), seen: seen(pods, by)}
	interfaces := s.d.Interfaces(namespaces(pods))
	c := &scraper{Service: s, reader: cgroup.NewReader(), fs: fileSystemAt(s.d.LayerRoot, &s.disks)}
	for _, p := range pods {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		groups, err := pod.CgroupsOf(p, s.d.CgroupDriver)
		if err != nil { // Run would have refused it
			continue
		}
		if m := c.pod(ctx, p, groups, by[p.ID], interfaces[p.NetNS]); m != nil {
			snap.pods = append(snap.pods, m)
		}
	}
	s.scraped.Store(snap)
	return snap, nil
}

// scraper makes one pass.
type scraper struct {
	*Service
	reader *cgroup.Reader
	fs     *fileSystem
}

// pod returns the metrics of a pod, or nil where it is gone.
func (s *scraper) pod(ctx context.Context, p *pod.Sandbox, groups pod.Cgroups, containers []*container.Container, interfaces []iface) *cri.PodSandboxMetrics {
	meta := p.Config.GetMetadata()
	out := &cri.PodSandboxMetrics{PodSandboxId: p.ID}
	total := sample{now: time.Now(), started: p.CreatedAt, created: p.CreatedAt, interfaces: interfaces, v2: s.d.Hierarchies.V2, disks: &s.disks, resources: p.Config.GetLinux().GetResources()}
	for _, c := range containers {
		path, outside := groups.Of(c)
		one, ok := s.container(ctx, c, path)
		if !ok {
			continue
		}
		base := []string{c.Config.GetMetadata().GetName(), path, imageName(c), c.ID, meta.GetNamespace(), meta.GetName()}
		out.ContainerMetrics = append(out.ContainerMetrics, &cri.ContainerMetrics{ContainerId: c.ID, Metrics: one.list(base)})
		if outside || !groups.Own {
			add(&total.stats, one.stats)
		}
		total.processes.add(one.processes)
	}
	if groups.Own {
		read, err := s.read(groups.Parent)
		if err != nil {
			return nil
		}
		total.stats = together(read, total.stats)
	} else if hasInit(p) {
		if read, err := s.read(groups.Container(p.ID)); err == nil {
			add(&total.stats, read)
		}
	}
	out.Metrics = total.list([]string{"", groups.Parent, "", "", meta.GetNamespace(), meta.GetName()})
	return out
}

func (s *scraper) read(path string) (cgroup.Stats, error) {
	g := s.d.Hierarchies.Group(path)
	g.Transient = true
	return s.reader.Read(g, cgroup.Full)
}

func (s *scraper) container(ctx context.Context, c *container.Container, path string) (*sample, bool) {
	read, err := s.read(path)
	if err != nil {
		return nil, false
	}
	return &sample{
		now: time.Now(), started: c.Status.StartedAt, created: c.CreatedAt, stats: read, resources: c.Status.Resources, v2: s.d.Hierarchies.V2, disks: &s.disks, fs: s.fs,
		written: s.layers.answer(ctx, c.ID, s.d.LayerRoot), processes: s.look(s.reader.Processes(s.d.Hierarchies.Group(path)), c.Status.PID),
	}, true
}

// imageName is how people call it.
func imageName(c *container.Container) string {
	return cmp.Or(c.Config.GetImage().GetUserSpecifiedImage(), c.Config.GetImage().GetImage(), c.ImageID)
}

// processes are what /proc knows of a container's processes.
type processes struct {
	descriptors, sockets uint64
	maxOpenFiles         uint64
}

func (p *processes) add(o processes) {
	p.descriptors += o.descriptors
	p.sockets += o.sockets
}

// What is looked at of one container, at most: it may have any number.
const (
	maxLooked    = 50_000 // descriptors
	maxProcesses = 5_000
)

// look counts what processes have open. first is the container's first process.
func (s *scraper) look(pids []int, first int) processes {
	var p processes
	for _, pid := range pids[:min(len(pids), maxProcesses)] {
		if p.descriptors >= maxLooked {
			break
		}
		dir := filepath.Join(s.d.Proc, strconv.Itoa(pid), "fd")
		f, err := os.Open(dir)
		if err != nil {
			continue // it has ended
		}
		names, _ := f.Readdirnames(maxLooked) // what came before an error is good
		for _, name := range names {
			if p.descriptors++; isSocket(int(f.Fd()), name) {
				p.sockets++
			}
		}
		f.Close()
	}
	if first > 0 {
		var limit unix.Rlimit
		if unix.Prlimit(first, unix.RLIMIT_NOFILE, nil, &limit) == nil {
			p.maxOpenFiles = limit.Cur
		}
	}
	return p
}

func isSocket(dir int, name string) bool {
	var buf [8]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	return err == nil && string(buf[:n]) == "socket:["
}

// fileSystem is the one that containers write to.
type fileSystem struct {
	device                   string
	size, inodes, inodesFree uint64
}

// fileSystemAt is nil where the kernel does not tell.
func fileSystemAt(path string, names *disks) *fileSystem {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(path, &fs) != nil || unix.Stat(path, &st) != nil {
		return nil
	}
	return &fileSystem{
		device: names.name(uint64(unix.Major(st.Dev)), uint64(unix.Minor(st.Dev))),
		size:   fs.Blocks * uint64(fs.Bsize), inodes: fs.Files, inodesFree: fs.Ffree,
	}
}

// disks keep how devices are called.
type disks struct {
	mu    sync.Mutex
	names map[[2]uint64]string
}

// name returns "/dev/sda", or "8:0" for what is no disk here: series must differ.
func (d *disks) name(major, minor uint64) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := [2]uint64{major, minor}
	if name, ok := d.names[key]; ok {
		return name
	}
	numbers := strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10)
	link, err := os.Readlink("/sys/dev/block/" + numbers)
	if err != nil {
		return numbers
	}
	if d.names == nil || len(d.names) >= maxDisks {
		d.names = map[[2]uint64]string{}
	}
	d.names[key] = "/dev/" + filepath.Base(link)
	return d.names[key]
}

// maxDisks bounds how many names are kept.
const maxDisks = 1000

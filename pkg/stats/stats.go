// Package stats tells what containers and pods use, in CRI's messages: the
// statistics that kubelet polls, and the metrics that its own cAdvisor would have
// for runtimes that it knows.
//
// There is one collector. It makes a pass over all that runs when somebody asks
// and the last one is older than half a second, and everybody who asks meanwhile
// shares it: an immutable snapshot, which is translated once. A rate is that
// between two passes. Metrics need more files of each cgroup, and have a pass of
// their own.
//
// What a container has written comes from a goroutine of Run, which measures
// while somebody asks, within a share of a processor: no pass waits for a disk.
//
// Nothing is on disk: after a restart the first rate is that since the start of
// the container, and the sums for pods in cgroups that are not theirs alone begin
// with the containers that are there.
//
// A pass holds mu, which guards what is kept from one to the next; nobody else
// holds it for long, and no other lock is taken inside it but those of leaves.
package stats

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cgroup"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/join"
	"github.com/berth-run/berth/pkg/network/counters"
	"github.com/berth-run/berth/pkg/pod"
)

const (
	// freshFor is how long a pass answers, and metricsFor one for metrics, which
	// reads more and is asked for less.
	freshFor   = 500 * time.Millisecond
	metricsFor = 2 * time.Second
	// idleAfter is when files are closed that nobody has asked for.
	idleAfter = time.Minute
)

// Pods are the pods of the node; package pod's Service is.
type Pods interface {
	Get(key string) (*pod.Sandbox, error)
	List() []*pod.Sandbox
}

// Containers are the node's; package container's Service is.
type Containers interface {
	Get(key string) (*container.Container, error)
	List() []*container.Container
}

// Layers tell what a container has written; package image's Service does.
type Layers interface {
	Usage(ctx context.Context, containerID string) (bytes, inodes uint64, err error)
}

// Deps is all that a Service needs.
type Deps struct {
	Pods       Pods
	Containers Containers
	Layers     Layers
	// Hierarchies are where cgroups are.
	Hierarchies *cgroup.Hierarchies
	// CgroupDriver is "cgroupfs" or "systemd".
	CgroupDriver string
	// LayerRoot is the file system that containers write to, called as ImageFsInfo
	// calls it.
	LayerRoot string
	// MaxFiles is how many files may stay open.
	MaxFiles int
	// Interfaces reads those of network namespaces; nil is the real way.
	Interfaces func(namespaces []string) map[string][]counters.Interface
	// Proc is where processes are looked at; empty: /proc.
	Proc string
}

// Service collects. Make one with New; its methods may be called concurrently.
type Service struct {
	d       Deps
	passes  *join.Group[*snapshot]
	scrape  *join.Group[*metricsSnapshot]
	cancel  context.CancelFunc
	last    atomic.Pointer[snapshot]
	scraped atomic.Pointer[metricsSnapshot]
	layers  layers
	disks   disks

	mu         sync.Mutex
	readers    []*cgroup.Reader
	containers map[string]*usage // by id
	pods       map[string]*usage
}

// New returns a Service. Close ends it, after Run has ended.
func New(d Deps) *Service {
	if d.Interfaces == nil {
		d.Interfaces = counters.Read
	}
	if d.Proc == "" {
		d.Proc = "/proc"
	}
	life, cancel := context.WithCancel(context.Background())
	return &Service{
		d: d, passes: join.New[*snapshot](life), scrape: join.New[*metricsSnapshot](life), cancel: cancel, layers: layers{source: d.Layers},
		containers: map[string]*usage{}, pods: map[string]*usage{},
	}
}

// Run measures what containers write, and closes what nobody asks for, until ctx
// ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			last := s.last.Load()
			if last == nil {
				continue
			}
			if time.Since(last.at) > idleAfter {
				s.closeFiles()
				continue
			}
			s.layers.measure(ctx)
		}
	}
}

// Close waits for the pass that is being made.
func (s *Service) Close() {
	s.cancel()
	s.passes.Wait()
	s.scrape.Wait()
	s.closeFiles()
}

func (s *Service) closeFiles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, all := range []map[string]*usage{s.containers, s.pods} {
		for _, u := range all {
			u.close()
		}
	}
}

// Container returns the statistics of one container. One that does not run has no
// more than what it has written.
func (s *Service) Container(ctx context.Context, id string) (*cri.ContainerStats, error) {
	c, err := s.d.Containers.Get(id)
	if err != nil {
		return nil, err
	}
	if c.Status.State != container.Running {
		return &cri.ContainerStats{Attributes: containerAttributes(c), WritableLayer: s.layers.answer(ctx, c.ID, s.d.LayerRoot)}, nil
	}
	snap, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if st := snap.containers[c.ID]; st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("statistics of container %s: it has ended: %w", c.ID, errs.NotFound)
}

// ContainerList returns the statistics of all running containers that the filter
// wants, the newest first. They are shared and must not be changed.
func (s *Service) ContainerList(ctx context.Context, f *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error) {
	snap, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	var all []*cri.ContainerStats
	for _, c := range s.d.Containers.List() {
		st := snap.containers[c.ID]
		if st != nil && c.Status.State == container.Running && strings.HasPrefix(c.ID, f.GetId()) &&
			strings.HasPrefix(c.PodID, f.GetPodSandboxId()) && selected(c.Config.GetLabels(), f.GetLabelSelector()) {
			all = append(all, st)
		}
	}
	return all, nil
}

// Pod returns the statistics of one pod. One that is not ready has only
// attributes.
func (s *Service) Pod(ctx context.Context, id string) (*cri.PodSandboxStats, error) {
	p, err := s.d.Pods.Get(id)
	if err != nil {
		return nil, err
	}
	if p.State != pod.Ready {
		return &cri.PodSandboxStats{Attributes: podAttributes(p), Linux: &cri.LinuxPodSandboxStats{}}, nil
	}
	snap, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if st := snap.pods[p.ID]; st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("statistics of pod %s: it has been stopped: %w", p.ID, errs.NotFound)
}

// PodList returns the statistics of all ready pods that the filter wants, the
// newest first. They are shared and must not be changed.
func (s *Service) PodList(ctx context.Context, f *cri.PodSandboxStatsFilter) ([]*cri.PodSandboxStats, error) {
	snap, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	var all []*cri.PodSandboxStats
	for _, p := range s.d.Pods.List() {
		st := snap.pods[p.ID]
		if st != nil && p.State == pod.Ready && strings.HasPrefix(p.ID, f.GetId()) && selected(p.Config.GetLabels(), f.GetLabelSelector()) {
			all = append(all, st)
		}
	}
	return all, nil
}

// selected tells whether labels have all that is selected.
func selected(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// fresh returns a snapshot that is young enough and has all that runs.
func (s *Service) fresh(ctx context.Context) (*snapshot, error) {
	return share(ctx, s.passes, s.recent, s.pass)
}

// share returns the last pass where that will do, which last tells by not being nil,
// and else makes one for all who ask meanwhile.
func share[T any](ctx context.Context, g *join.Group[*T], last func() *T, pass func(context.Context) (*T, error)) (*T, error) {
	if v := last(); v != nil {
		return v, nil
	}
	return g.Do(ctx, "", func(ctx context.Context) (*T, error) {
		if v := last(); v != nil { // the pass before has ended since
			return v, nil
		}
		return pass(ctx)
	})
}

// recent returns the last pass, or nil where that would not do.
func (s *Service) recent() *snapshot {
	if snap := s.last.Load(); snap != nil && time.Since(snap.at) < freshFor && s.complete(snap.seen) {
		return snap
	}
	return nil
}

// complete tells whether a pass that has seen these ids has seen all that runs now:
// who has just started a container looks for it.
func (s *Service) complete(seen map[string]bool) bool {
	for _, c := range s.d.Containers.List() {
		if c.Status.State == container.Running && !seen[c.ID] {
			return false
		}
	}
	for _, p := range s.d.Pods.List() {
		if p.State == pod.Ready && !seen[p.ID] {
			return false
		}
	}
	return true
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/admin"
	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/cri"
	"github.com/berth-run/berth/pkg/cri/stream"
	"github.com/berth-run/berth/pkg/edge"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/image/layer"
	"github.com/berth-run/berth/pkg/image/trust"
	"github.com/berth-run/berth/pkg/manifest"
	"github.com/berth-run/berth/pkg/network"
	"github.com/berth-run/berth/pkg/nri"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/stats"
	"github.com/berth-run/berth/pkg/telemetry"
)

// services are all that the daemon is made of.
type services struct {
	o       Options
	started time.Time
	facts   host.Facts
	driver  string // of cgroups
	// commands are the programs of runtime handlers.
	commands *commands

	telemetry  *telemetry.Telemetry
	runtime    *runtime.Client
	images     *image.Service
	network    *network.Service
	containers *container.Service
	pods       *pod.Service
	manifests  *manifest.Service
	devices    *cdi.Registry
	plugins    *nri.Service   // nil where NRI is off
	streams    *stream.Server // nil where it could not listen

	node          *cri.Node
	criPods       *cri.Pods
	criContainers *cri.Containers
	criStreams    *cri.Streams
	criImages     *cri.Images

	stats     *stats.Service
	criEvents *cri.Events
}

// build opens every service and recovers. What it starts ends with life, and
// running tells when it has. Where it fails it returns what is to be closed.
func build(life context.Context, o Options, running *sync.WaitGroup) (*services, error) {
	s := &services{o: o, started: time.Now(), facts: host.Probe(), devices: cdi.New(o.Config.Runtime.CDISpecDirs), commands: newCommands(o.Config)}
	for _, err := range s.commands.missing(life) {
		klog.FromContext(life).Error(err, "Pods of a runtime handler cannot run until its program is there")
	}
	var err error
	if s.telemetry, err = telemetry.New(life, s.telemetryOptions()); err != nil {
		return s, err
	}
	if err := s.openRuntime(life, running); err != nil {
		return s, err
	}
	if s.plugins, err = openPlugins(s.o, s.facts, s.devices); err != nil {
		return s, err
	}
	if err := s.openStores(life); err != nil {
		return s, err
	}
	running.Go(func() { _ = s.images.Run(life) })     // nil always
	running.Go(func() { _ = s.network.Run(life) })    // nil always
	running.Go(func() { _ = s.containers.Run(life) }) // nil always
	s.recover(life, running)
	if err := startPlugins(life, s, running); err != nil {
		return s, err
	}
	s.translate()
	s.openStats(life, running)
	s.openStreams(life, running)
	s.manifests, err = manifest.Open(life, manifest.Deps{
		Root: o.Config.Root, NodeName: s.facts.Hostname, NodeMemory: memory(), Pods: s.criPods, Containers: s.criContainers, Images: s.criImages,
	})
	if err != nil {
		return s, fmt.Errorf("open manifests: %w", err)
	}
	running.Go(func() { s.notify(life) })
	return s, nil
}

// openRuntime reaches berth-runtime, or starts it where that is ours to do, and
// agrees with it on the cgroup driver.
func (s *services) openRuntime(life context.Context, running *sync.WaitGroup) error {
	c := s.o.Config
	s.runtime = runtime.Dial(filepath.Join(c.State, "runtime.sock"))
	s.driver = cgroupDriver(c.Runtime.CgroupDriver, "", s.facts)
	if s.o.Standalone {
		g := &guard{state: c.State, driver: s.driver, client: s.runtime, patience: startPatience, usual: runtimeStart}
		if err := g.ensure(life); err != nil {
			return err
		}
		running.Go(func() { g.run(life) })
	}
	ctx, cancel := context.WithTimeout(life, runtimeStart)
	defer cancel()
	v, err := s.runtime.Version(ctx)
	if errors.Is(err, errs.Unavailable) || errs.Of(err) == errs.Timeout {
		klog.FromContext(life).Error(err, "berth-runtime does not answer: the node is not ready until it does", "socket", filepath.Join(c.State, "runtime.sock"))
		return nil
	}
	if err != nil {
		return err
	}
	s.driver = cgroupDriver(c.Runtime.CgroupDriver, v.CgroupDriver, s.facts)
	if s.driver != v.CgroupDriver {
		return fmt.Errorf("cgroup_driver is %q but berth-runtime runs with --cgroup-driver %s: make them agree: %w", s.driver, v.CgroupDriver, errs.Conflict)
	}
	for _, limit := range v.Limits {
		klog.FromContext(life).Info("berth-runtime is limited", "limit", limit)
	}
	return nil
}

// openStores opens what lies on disk.
func (s *services) openStores(life context.Context) (err error) {
	c := s.o.Config
	checkRegistries(life, c)
	s.images, err = image.Open(life, image.Options{
		Root: c.Root, State: c.State, KeepBlobs: c.Image.KeepBlobs, MaxConcurrentDownloads: c.Image.MaxConcurrentDownloads,
		MaxConnections: c.Image.MaxConnections, MemoryBudget: int64(c.Image.MemoryBudget),
		Registry: s.registryOptions(c), Pinned: c.Image.Pinned,
		Signatures:   trust.Options{Policy: c.Image.SignaturePolicy, Namespaces: c.Image.SignaturePolicyDir, RegistriesD: c.Image.RegistriesD},
		LayerBackend: layer.Backend(c.Image.LayerBackend), LayerVerity: c.Image.LayerVerity, Directories: directoryHandlers(c.Runtime),
	})
	if err != nil {
		return fmt.Errorf("open images: %w", err)
	}
	if s.network, err = network.Open(life, s.networkOptions()); err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	s.containers, err = container.Open(container.Deps{
		Root: c.Root, Runtime: s.runtime, Images: s.images, Host: s.facts, System: host.System{}, Handlers: handlerOptions(c.Runtime, s.driver),
		Plugins: containerPlugins(s.plugins), Devices: s.devices, Commands: s.commands,
	})
	if err != nil {
		return err
	}
	s.pods, err = pod.Open(pod.Deps{
		Root: c.Root, State: c.State, NetNSDir: c.Network.NetNSDir, Runtime: s.runtime, Network: s.network, Containers: s.containers,
		Handlers: handlerNames(c.Runtime), Commands: s.commands, CgroupDriver: s.driver, DefaultSysctls: c.Runtime.DefaultSysctls,
		Plugins: podPlugins(s.plugins),
	})
	return err
}

func (s *services) networkOptions() network.Options {
	c := s.o.Config.Network
	o := network.Options{
		Root: s.o.Config.Root, ConfDir: c.ConfDir, BinDirs: c.BinDirs, MaxConfNum: c.MaxConfNum, Timeout: c.Timeout.Duration,
	}
	if s.o.Standalone {
		o.Builtin = &network.Builtin{Bridge: c.Builtin.Bridge, Subnet: c.Builtin.Subnet.Prefix, Subnet6: c.Builtin.Subnet6.Prefix, MTU: c.Builtin.MTU}
		if self, err := os.Executable(); err == nil {
			o.BinDirs = append([]string{filepath.Join(filepath.Dir(self), "cni")}, o.BinDirs...)
		}
	}
	return o
}

// recover brings records and truth together. Where berth-runtime does not
// answer, or something cannot be taken down yet, it goes on beside the requests.
func (s *services) recover(life context.Context, running *sync.WaitGroup) {
	try := func() error {
		return errors.Join(s.containers.Recover(life), s.pods.Recover(life))
	}
	err := try()
	if err == nil {
		return
	}
	klog.FromContext(life).Error(err, "Not all is recovered: trying again beside the requests")
	running.Go(func() {
		for wait := 100 * time.Millisecond; err != nil && life.Err() == nil; wait = min(2*wait, time.Minute) {
			select {
			case <-life.Done():
			case <-time.After(wait):
				err = try()
			}
		}
	})
}

// translate makes CRI's edge.
func (s *services) translate() {
	c := s.o.Config
	s.node = &cri.Node{
		Build: s.o.Version, Runtime: s.runtime, Network: s.network,
		Handlers:     func(ctx context.Context) []cri.Handler { return reportedHandlers(ctx, s.commands, s.facts) },
		CgroupDriver: s.driver, Info: map[string]any{"config": c, "host": s.facts},
	}
	s.criContainers = &cri.Containers{Service: s.containers, Pods: s.pods, Images: s.images}
	s.criPods = &cri.Pods{Service: s.pods, Containers: s.criContainers}
	s.criEvents = &cri.Events{Pods: s.criPods}
	s.criStreams = &cri.Streams{Sessions: &cri.Sessions{Containers: s.containers, Pods: s.pods, Runtime: s.runtime}}
	s.criImages = &cri.Images{Service: s.images, Handlers: handlerNames(c.Runtime)}
}

// register adds CRI and Berth's own API to the server.
func (s *services) register(g *grpc.Server, stopping <-chan struct{}) {
	s.criEvents.Stopping = stopping
	edge.RegisterHealth(g, healthy(s.runtime), stopping)
	cri.Register(g, cri.Groups{
		Node: s.node, Pods: s.criPods, Containers: s.criContainers, Images: s.criImages, Stats: &cri.Stats{Collector: s.stats}, Events: s.criEvents, Streams: s.criStreams,
	})
	admin.New(admin.Deps{
		Version: s.o.Version, Started: s.started, Root: s.o.Config.Root, State: s.o.Config.State, Runtime: s.runtime,
		Images: admin.FromImages(s.images), Manifests: s.manifests, Checkers: s.checkers(), Facts: s.describe, Advice: s.advice, Stopping: stopping,
		Containers: s.users, Sessions: s.criStreams.Sessions,
	}).Register(g)
}

// notify tells the manifests of each container that has ended.
func (s *services) notify(life context.Context) {
	for life.Err() == nil {
		events, cancel := s.containers.Subscribe(64)
		s.manifests.Notify() // what has ended before, or while a queue was too full
		s.forward(life, events)
		cancel()
	}
}

// forward returns when life ends or the queue has been cut off.
func (s *services) forward(life context.Context, events <-chan container.Event) {
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			if e.Type == container.EventStopped {
				s.manifests.Notify()
			}
		case <-life.Done():
			return
		}
	}
}

// close ends those services that are open, the last one first. Containers run on.
func (s *services) close() {
	if s.streams != nil {
		s.streams.Close()
	}
	var err error
	if s.manifests != nil {
		err = s.manifests.Close()
	}
	if s.stats != nil {
		s.stats.Close()
	}
	if s.pods != nil {
		s.pods.Close()
	}
	if s.plugins != nil {
		s.plugins.Close()
	}
	if s.network != nil {
		err = errors.Join(err, s.closeNetwork())
	}
	if s.images != nil {
		err = errors.Join(err, s.images.Close())
	}
	if s.telemetry != nil {
		err = errors.Join(err, s.closeTelemetry())
	}
	if err != nil {
		klog.Background().Error(err, "Did not close all cleanly")
	}
}

// closeNetwork takes the built-in network from the host where no pod is left on
// it: nothing of Berth stays in the kernel then.
func (s *services) closeNetwork() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.network.Teardown(ctx)
	if errors.Is(err, errs.Conflict) { // pods run on
		err = nil
	}
	return errors.Join(err, s.network.Close())
}

// memory is the machine's, in bytes; 0 where the kernel does not tell.
func memory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// describe is what `berth info` shows beside what every daemon has.
func (s *services) describe(context.Context) []admin.Fact {
	facts := []admin.Fact{
		{Name: "kernel", Value: s.facts.Kernel.String()},
		{Name: "cgroup", Value: map[bool]string{true: "v2", false: "v1"}[s.facts.CgroupV2] + ", " + s.driver},
		{Name: "runtime handler", Value: s.o.Config.Runtime.DefaultHandler},
	}
	for name, value := range s.network.Info() {
		facts = append(facts, admin.Fact{Name: "network " + name, Value: value})
	}
	return facts
}

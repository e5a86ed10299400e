// Package nri lets plugins of the Node Resource Interface take part in the life
// of pods and containers: it tells them of each step, applies what they change,
// and fails what they refuse. Plugins connect to a socket, or are started from a
// directory; github.com/containerd/nri speaks with them, one request at a time.
// What a plugin asks for that cannot be done is refused, never left out.
//
// A plugin that does not answer in time is cut off and the request goes on. While
// no plugin is there, a step costs a lock for reading and a look at a counter.
//
// # What plugins know
//
// A plugin is told all pods and living containers when it comes, under the sync
// lock, and each step from then on. So that nothing falls in between, making a pod
// or a container holds that lock for reading (Hold) from the plugins' consent until
// the table has the new object. No lock of a pod or container is waited for under
// it, but for the record's of the one in the making. That is why changes that plugins ask for other
// containers are applied by a goroutine of their own (Run), in order; the reply to
// CreateContainer waits for them. The library does not pass evictions on.
//
// Nothing is kept on disk: after a restart plugins are told everything anew.
package nri

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	validator "github.com/containerd/nri/plugins/default-validator/builtin"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/pod"
)

// Validator says what adjustments are refused, whoever makes them.
type Validator = validator.DefaultValidatorConfig

// Options are the node's settings.
type Options struct {
	// Version is Berth's, which plugins are told.
	Version string
	// Socket is where plugins connect; empty: nowhere.
	Socket string
	// Plugins is the directory of those that are started, Configs that of their
	// configurations. Either may be missing.
	Plugins, Configs string
	// RegistrationTimeout and RequestTimeout bound what a plugin may take; they
	// hold for all Services of the process. 0 is the library's default.
	RegistrationTimeout, RequestTimeout time.Duration
	Validator                           Validator
	Host                                host.Facts
	Devices                             *cdi.Registry // nil: none
}

// Node is what plugins are told about and may change.
type Node struct {
	Pods interface {
		Get(id string) (*pod.Sandbox, error)
		List() []*pod.Sandbox
	}
	Containers interface {
		Get(id string) (*container.Container, error)
		List() []*container.Container
		Spec(id string) (*specs.Spec, error)
		Subscribe(size int) (<-chan container.Event, func())
		SetLimits(ctx context.Context, id string, r *cri.LinuxContainerResources) error
	}
	Images interface {
		Get(ref string) (image.Image, error)
	}
}

// Service relays between plugins and the node. Make one with New. Pods and
// Containers give what those services call; that works, and does nothing, before
// Start and after Close.
type Service struct {
	o          Options
	node       Node
	adaptation *adaptation.Adaptation
	listens    bool
	connected  atomic.Int32  // plugins, the built-in validator included
	came       chan struct{} // has one item when connected has changed
	// pods and containers are those that plugins know.
	pods, containers known
	// telling is held while plugins are told of what has happened to a container,
	// within the timeouts: who finds its end told knows that it has been heard.
	telling sync.Mutex
	updates updates
}

// New makes a Service without plugins.
func New(o Options) (*Service, error) {
	s := &Service{o: o, came: make(chan struct{}, 1), updates: updates{fresh: make(chan struct{}, 1)}}
	if _, ours := nrilog.Get().(logger); !ours { // the library's is one for the process
		nrilog.Set(logger{})
	}
	if o.RegistrationTimeout > 0 {
		adaptation.SetPluginRegistrationTimeout(o.RegistrationTimeout)
	}
	if o.RequestTimeout > 0 {
		adaptation.SetPluginRequestTimeout(o.RequestTimeout)
	}
	options := []adaptation.Option{
		adaptation.WithPluginPath(o.Plugins), adaptation.WithPluginConfigPath(o.Configs), adaptation.WithMetrics(counter{s}),
		adaptation.WithDefaultValidator(&o.Validator),
	}
	if s.listens = o.Socket != "" && free(o.Socket); s.listens {
		options = append(options, adaptation.WithSocketPath(o.Socket))
	} else {
		options = append(options, adaptation.WithDisabledExternalConnections())
	}
	var err error
	s.adaptation, err = adaptation.New("berth", o.Version, s.synchronize, s.unsolicited, options...)
	if err != nil {
		return nil, fmt.Errorf("prepare for NRI plugins: %w", err)
	}
	return s, nil
}

// Start starts the plugins of the directory, tells them all that is there, and
// listens for others. It takes as long as they do, within the timeouts; one that
// does not come up is left out.
func (s *Service) Start(n Node) error {
	s.node = n
	if err := s.adaptation.Start(); err != nil {
		return fmt.Errorf("start NRI plugins: %w", err)
	}
	if s.listens {
		_ = os.Chmod(s.o.Socket, 0o600) // others may not have write permission as it is; the directory is root's
	}
	return nil
}

// Close ends the plugins that were started here and listens no more.
func (s *Service) Close() { s.adaptation.Stop() }

// Listens tells whether plugins can connect: the socket is wanted, and no other
// runtime has it.
func (s *Service) Listens() bool { return s.listens }

// Hold keeps new plugins out until release is called.
func (s *Service) Hold() (release func()) { return s.adaptation.BlockPluginSync().Unblock }

// idle tells whether there is nobody to tell.
func (s *Service) idle() bool { return s.connected.Load() == 0 }

// synchronize tells plugins that have come what is there. The library has the
// sync lock meanwhile.
func (s *Service) synchronize(ctx context.Context, tell adaptation.SyncCB) error {
	var pods []*api.PodSandbox
	for _, p := range s.node.Pods.List() {
		s.pods.add(p.ID)
		pods = append(pods, podOf(p))
	}
	var containers []*api.Container
	for _, c := range s.node.Containers.List() {
		if c.Status.State != container.Exited {
			s.containers.add(c.ID)
			containers = append(containers, s.containerOf(c, nil))
		}
	}
	updates, err := tell(ctx, pods, containers)
	if err == nil {
		s.updates.put(&batch{updates: updates})
	}
	return err
}

// counter notes how many plugins there are.
type counter struct{ s *Service }

func (counter) RecordPluginInvocation(string, string, error)                               {}
func (counter) RecordPluginLatency(string, string, time.Duration)                          {}
func (counter) RecordPluginAdjustments(string, string, *api.ContainerAdjustment, int, int) {}

// UpdatePluginCount is called by the library, under its lock.
func (c counter) UpdatePluginCount(n int) {
	if int(c.s.connected.Swap(int32(n))) == n {
		return
	}
	if n == 0 {
		c.s.pods.clear()
		c.s.containers.clear()
	}
	klog.Background().Info("NRI plugins have changed", "plugins", n)
	select {
	case c.s.came <- struct{}{}:
	default:
	}
}

// known are the ids of the pods and containers that plugins have been told of,
// and whether also of their end. The zero value is ready.
type known struct {
	mu   sync.Mutex
	ends map[string]bool
}

func (k *known) add(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ends == nil {
		k.ends = map[string]bool{}
	}
	k.ends[id] = false
}

// end tells whether the end of id is still to be told, and notes that it is.
func (k *known) end(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	ended, ok := k.ends[id]
	if ok {
		k.ends[id] = true
	}
	return ok && !ended
}

// ended tells whether the end of id has been told.
func (k *known) ended(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ends[id]
}

// forget tells whether id was known.
func (k *known) forget(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.ends[id]
	delete(k.ends, id)
	return ok
}

func (k *known) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.ends)
}

// living returns the ids whose end has not been told.
func (k *known) living() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []string
	for id, ended := range k.ends {
		if !ended {
			ids = append(ids, id)
		}
	}
	return ids
}

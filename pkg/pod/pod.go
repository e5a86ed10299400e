// Package pod owns pods: their records, their names, the namespaces and files
// that their containers share, and with them the containers' life: a container
// is made through its pod, and ends with it.
//
//	Run ──▶ ready ──Stop, or a reboot──▶ notready ──Remove──▶ (gone)
//
// There is no process for a pod. Its namespaces are pinned by bind mounts that
// berth-runtime makes, and only a shared process namespace has a PID 1.
//
// # On disk
//
//	<root>/pods/ID/config.json   written once, before anything is made
//	<root>/pods/ID/state.json    its presence means that Run succeeded
//	<state>/pods/ID/             shm, resolv.conf, hosts, hostname, and ns/ with
//	                             the pinned namespaces, but for the network's,
//	                             which is <netns_dir>/berth-ID
//
// A pod without state.json is half of a Run or of a Remove, and taken down by
// Recover. One whose <state> directory is gone has seen a reboot: notready.
//
// # Locks
//
// A pod's lock (by id, with a context) is held through CreateContainer, Stop and
// Remove, before any lock of package container. Statuses and lists take none.
// Run and CreateContainer go on when their caller leaves, so that a repeated
// call finds them; Close waits for them.
package pod

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/event"
	"github.com/berth-run/berth/pkg/internal/join"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/table"
	"github.com/berth-run/berth/pkg/network"
	"github.com/berth-run/berth/pkg/runtime"
)

// State is where a pod is in its life.
type State string

// The states.
const (
	Ready    State = "ready"
	NotReady State = "notready"
)

// Sandbox is what is known of one pod at one moment. It is shared and must not
// be changed.
type Sandbox struct {
	ID string
	// Config is as kubelet sent it to Run; see InForce.
	Config *cri.PodSandboxConfig
	// Handler is the runtime handler that was asked for; empty: the default.
	Handler   string
	CreatedAt time.Time
	State     State
	// NetNS is the path of the network namespace, empty with the host's.
	NetNS string
	// IPs are the pod's addresses, the primary one first.
	IPs []netip.Addr

	namespaces map[specs.LinuxNamespaceType]string
	released   bool // Stop has nothing more to do

	overhead, resources *cri.LinuxContainerResources // nil: Config's; see UpdateResources
}

// Network is what pods need of the network service.
type Network interface {
	Attach(ctx context.Context, r network.AttachRequest) (network.Result, error)
	Detach(ctx context.Context, podID string) error
	Loopback(netns string) error
}

// Deps is all that a Service needs.
type Deps struct {
	// Root and State are the daemon's directories.
	Root, State string
	// NetNSDir is where network namespaces are pinned.
	NetNSDir   string
	Runtime    runtime.Runtime
	Network    Network
	Containers *container.Service
	// Handlers are the runtime handlers that exist, beside "".
	Handlers []string
	// Commands finds the programs of handlers; nil: there are none.
	Commands container.Commands
	// CgroupDriver is "cgroupfs" or "systemd".
	CgroupDriver string
	// DefaultSysctls are set in every pod that leaves them open.
	DefaultSysctls map[string]string
	// Plugins may be nil.
	Plugins Plugins
}

// Problem is something that Check found.
type Problem struct {
	Object   string
	What     string
	Repaired bool
}

// Event is one thing that happened to a pod; Pod is as it is then. The types are
// those of containers: CRI has no others.
type Event struct {
	Type container.EventType
	Pod  *Sandbox
	At   time.Time
}

// Service is the node's pods. Make one with Open; its methods may be called
// concurrently.
type Service struct {
	d Deps
	paths
	table   table.Table[Sandbox]
	names   table.Names
	locks   keylock.Locks
	runs    *join.Group[string]
	creates *join.Group[string]
	cancel  context.CancelFunc
	events  event.Topic[Event]
	halves  halves
}

// Subscribe returns all events from now on; see event.Topic for size and for
// what happens to slow readers.
func (s *Service) Subscribe(size int) (<-chan Event, func()) { return s.events.Subscribe(size) }

// Get returns the pod whose id is key or alone begins with it. The error is
// errs.NotFound, or errs.Invalid where several do.
func (s *Service) Get(key string) (*Sandbox, error) { return s.table.Find("pod", key) }

// List returns all pods, the newest first, without taking a lock.
func (s *Service) List() []*Sandbox {
	all := s.table.All()
	slices.SortFunc(all, func(a, b *Sandbox) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// IDs returns the ids of all pods, half-made ones included.
func (s *Service) IDs() []string {
	ids := s.halves.ids()
	for _, p := range s.table.All() {
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Close ends what Run and CreateContainer are at work on and waits for it. Pods
// stay.
func (s *Service) Close() {
	s.cancel()
	s.runs.Wait()
	s.creates.Wait()
}

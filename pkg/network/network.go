// Package network connects pods to networks through CNI.
//
// It owns which CNI configuration is in use, what each pod is attached to, and
// the results that the plugins gave. It runs ADD, DEL, CHECK, GC and STATUS
// (CNI 1.1), and sets the loopback interface up itself. It does not make or
// remove network namespaces, and knows nothing of pods beyond an
// AttachRequest.
//
// # State
//
// <root>/network/<podid>.json is the record of one pod, libcni's cache of
// results is beside it in cache/, the built-in network's subnets in builtin.json
// and those that kubelet wishes in podcidr.json. The life of a record:
//
//	(none) ── intent written ──▶ adding ── every ADD succeeded ──▶ attached
//	                               │                                  │
//	                               └────── DEL succeeded ◀────────────┘ ──▶ (none)
//
// The intent holds all that DEL needs, the configuration itself included, so
// Detach works after a crash in the middle of ADD, after the configuration has
// changed, and when the namespace is gone.
//
// # Locks and goroutines
//
// A pod's lock (keylock) is held through Attach and Detach of that pod; mu of a
// leaf type is taken inside it and never the other way round. The configuration
// and the attached results are read without locks. The only long-lived
// goroutine is Run's caller.
package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/table"
	"github.com/berth-run/berth/pkg/network/bridge"
	"github.com/berth-run/berth/pkg/network/hostport"
	"github.com/berth-run/berth/pkg/network/native"
)

// Options says where a Service finds its configuration and keeps its records.
// Root is required.
type Options struct {
	// Root is Berth's persistent directory; records lie in Root/network.
	Root string
	// ConfDir holds the CNI configurations; default /etc/cni/net.d. It is not
	// read where Builtin is set.
	ConfDir string
	// BinDirs are searched for plugins, in order; default /opt/cni/bin.
	BinDirs []string
	// CacheDir is libcni's; default Root/network/cache.
	CacheDir string
	// Builtin, where set, is used instead of any configuration in ConfDir.
	Builtin *Builtin
	// MaxConfNum is how many configurations a pod is attached to, in the order
	// of their file names: the first is eth0, the next eth1. Zero means one.
	MaxConfNum int
	// Timeout bounds the ADD or the DEL of one pod. Zero means a minute.
	Timeout time.Duration
}

// Service attaches pods to networks. Its methods may be called concurrently.
type Service struct {
	dir     string // of the records
	opts    Options
	cni     plugins
	exec    *native.Exec
	pods    keylock.Locks
	records table.Table[record]
	conf    atomic.Pointer[configuration]
	status  statusCache
	// collecting is held for reading through Attach, and for writing while garbage
	// is collected or the built-in network moves.
	collecting sync.RWMutex
	opened     time.Time
	builtin    atomic.Pointer[Builtin]  // as it is now; nil where ConfDir rules
	wanted     atomic.Pointer[podCIDRs] // by SetPodCIDR; nil until then
	bridge     *bridge.Bridge           // the built-in network's; its V6 is collecting's
	ports      hostport.Table
}

// Result is what a pod was given.
type Result struct {
	// IPs are the pod's addresses on eth0, the primary one first.
	IPs []netip.Addr
	// Interfaces are those that the plugins name, of the pod and of the host.
	Interfaces []Interface
	// DNS is what the network wishes the pod to use; often empty.
	DNS DNS
	// Raw is the CNI result of the first network, as the last plugin wrote it.
	Raw json.RawMessage
}

// Interface is one network interface of a result.
type Interface struct {
	Name, MAC string
	// Sandbox is the path of the pod's namespace, or empty for the host's.
	Sandbox string
}

// DNS is a resolver configuration.
type DNS struct {
	Servers, Searches, Options []string
}

// Open reads the records and the configuration. A record that cannot be read
// is set aside, reported by Check, and restored as far as libcni's cache knows; a missing or broken configuration is
// reported by Status. Neither is an error.
func Open(ctx context.Context, o Options) (*Service, error) {
	s := &Service{opts: withDefaults(o), dir: filepath.Join(o.Root, "network"), exec: newExec(), opened: time.Now()}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	s.cni.installed = libcni.NewCNIConfigWithCacheDir(s.opts.BinDirs, s.opts.CacheDir, s.exec)
	s.cni.bundled = libcni.NewCNIConfigWithCacheDir(s.opts.BinDirs, s.opts.CacheDir, s.exec.Bundled())
	if err := s.loadRecords(ctx); err != nil {
		return nil, err
	}
	if filepath.Dir(s.opts.CacheDir) == s.dir { // it is ours alone
		if err := s.restoreRecords(ctx); err != nil {
			return nil, fmt.Errorf("open network: %w", err)
		}
	}
	wanted, err := loadPodCIDR(ctx, s.dir)
	if err != nil {
		return nil, fmt.Errorf("open network: %w", err)
	}
	s.wanted.Store(wanted)
	if o.Builtin != nil {
		return s, s.openBuiltin()
	}
	s.reload(ctx)
	return s, nil
}

func withDefaults(o Options) Options {
	if o.ConfDir == "" {
		o.ConfDir = "/etc/cni/net.d"
	}
	o.ConfDir = filepath.Clean(o.ConfDir)
	if len(o.BinDirs) == 0 {
		o.BinDirs = []string{"/opt/cni/bin"}
	}
	if o.CacheDir == "" {
		o.CacheDir = filepath.Join(o.Root, "network", "cache")
	}
	if o.MaxConfNum <= 0 {
		o.MaxConfNum = 1
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	return o
}

// Close waits for clean-ups that Detach left to the background, within a bound.
// Pods stay attached.
func (s *Service) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.Timeout)
	defer cancel()
	return s.exec.Close(ctx)
}

// Result returns what the pod was given by its last successful Attach, without
// waiting for anything.
func (s *Service) Result(podID string) (Result, bool) {
	r := s.records.Get(podID)
	if r == nil || r.Phase != phaseAttached {
		return Result{}, false
	}
	return r.result(), true
}

// Package container owns containers: their records, their names and their
// life, from CreateContainer to RemoveContainer. It makes specifications
// (package spec) and root file systems (package image) and hands them to
// berth-runtime; pods are package pod's, which calls Create.
//
//	Create ──▶ created ──Start──▶ running ──exit──▶ exited ──Remove──▶ (gone)
//	              │                                   ▲
//	              └──────────Kill, or lost────────────┘
//
// # State on disk
//
//	<root>/containers/ID/config.json   written once, before the runtime is asked
//	<root>/containers/ID/state.json    what CRI calls status; its presence means
//	                                   that Create succeeded
//	<root>/containers/ID/volumes/N     the image's VOLUMEs
//	<root>/containers/ID/restore       a dump that its start goes on from
//
// A directory without state.json is half of a Create or of a Remove, and taken
// down by Recover. The pid and the exit are berth-runtime's facts: after a
// restart they are asked for, never remembered.
//
// # Locks
//
// A container's lock (by id, with a context) is held through Start, Update and
// Remove. Inside it, or without it, its record's lock is held while a new status
// is written and stored. mu guards maps only. Stop and Kill take none while they
// wait for the end, so a second Stop with less patience wins. Lists and statuses read immutable
// records without locks.
//
// The only long-lived goroutine is Run's, which follows berth-runtime's events.
package container

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/cdi"
	"github.com/berth-run/berth/pkg/event"
	"github.com/berth-run/berth/pkg/host"
	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/table"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/spec"
)

// Container is what is known of one container at one moment. It is shared and
// must not be changed.
type Container struct {
	ID, PodID string
	// Config is as kubelet sent it.
	Config *cri.ContainerConfig
	// ImageID is the id of the image: CRI's image_ref and image_id.
	ImageID string
	// VolumeImages are the ids of the images and artifacts that it mounts, by their
	// place among Config's mounts.
	VolumeImages map[int]string
	// LogPath is absolute, or empty without a log.
	LogPath string
	User    *cri.ContainerUser
	// StopSignal is the signal that asks it to end.
	StopSignal cri.Signal
	CreatedAt  time.Time
	Status     Status
	// CgroupsPath is where its cgroup is, in OCI's form: plugins may have chosen.
	CgroupsPath string

	handler    string // the pod's runtime handler
	stopSignal int
	restores   bool           // its start is a restore, see CreateFrom
	process    *specs.Process // what execs are made from
	asked      *atomic.Bool   // whether the stop signal has been sent
	exited     chan struct{}  // closed with the transition to Exited
}

// Images is what containers need of the image service.
type Images interface {
	Get(ref string) (image.Image, error)
	Admit(ctx context.Context, i image.Image, asked, namespace string) error
	Mounts
}

// Mounts are what containers see of images.
type Mounts interface {
	Mount(ctx context.Context, r image.MountRequest) (string, error)
	// MountVolumes mounts images as volumes; Unmount unmounts these too.
	MountVolumes(ctx context.Context, r image.VolumesRequest) ([]image.Volume, error)
	Unmount(ctx context.Context, containerID string) error
	// Changes writes what a paused container has written.
	Changes(ctx context.Context, containerID string, w io.Writer) error
}

// Deps is all that a Service needs.
type Deps struct {
	// Root is the daemon's persistent directory.
	Root    string
	Runtime runtime.Runtime
	Images  Images
	Host    host.Facts
	// System looks at single paths of the host; nil is the real one.
	System spec.System
	// Devices are those of CDI; nil: none.
	Devices *cdi.Registry
	// Handlers are the node's settings by runtime handler; "" is the default's.
	Handlers map[string]spec.Options
	// Plugins may be nil.
	Plugins Plugins
	// Commands finds the programs of handlers; nil: there are none.
	Commands Commands
}

// Commands finds what makes the containers of runtime handlers.
type Commands interface {
	// Command returns errs.Unavailable where the handler's program is not there.
	Command(ctx context.Context, handler string) (Command, error)
}

// Command is what makes the containers of a runtime handler. The zero value is
// berth-runtime itself.
type Command struct {
	*runtime.Command
	// What the program says that it can do.
	RecursiveReadOnly, UserNamespaces bool
}

// Lower takes from the facts what the program does not know.
func (c Command) Lower(f host.Facts) host.Facts {
	if c.Command != nil {
		f.RecursiveReadOnly = f.RecursiveReadOnly && c.RecursiveReadOnly
		f.UserNamespaces = f.UserNamespaces && c.UserNamespaces
		f.IDMapMounts = f.IDMapMounts && c.UserNamespaces
	}
	return f
}

// EventType says what happened to a container.
type EventType string

// The event types.
const (
	EventCreated EventType = "created"
	EventStarted EventType = "started"
	EventStopped EventType = "stopped"
	EventDeleted EventType = "deleted"
)

// Event is one thing that happened to a container; Container is as it is then.
type Event struct {
	Type      EventType
	Container *Container
	At        time.Time
}

// Problem is something that Check found.
type Problem struct {
	Object   string
	What     string
	Repaired bool
}

// Service is the node's containers. Make one with Open; its methods may be
// called concurrently.
type Service struct {
	d Deps
	paths
	table   table.Table[Container]
	names   table.Names
	locks   keylock.Locks // per container: Start, Update, Remove
	records keylock.Locks // per container: a new status
	events  event.Topic[Event]

	leftovers leftovers
	paused    sync.Map // ids of containers that a checkpoint has paused
}

// Get returns the container whose id is key or alone begins with it. The error
// is errs.NotFound, or errs.Invalid where several do.
func (s *Service) Get(key string) (*Container, error) { return s.table.Find("container", key) }

// lock takes the lock of the container that key names and returns it as it is
// then.
func (s *Service) lock(ctx context.Context, key string) (*Container, func(), error) {
	c, err := s.Get(key)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := s.locks.Lock(ctx, c.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("wait for another operation on container %s: %w", c.ID, err)
	}
	if c, err = s.Get(c.ID); err != nil { // it may have been removed meanwhile
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

// List returns all containers, the newest first, without taking a lock.
func (s *Service) List() []*Container {
	all := s.table.All()
	sortNewestFirst(all)
	return all
}

// InPod returns the containers of a pod, the newest first.
func (s *Service) InPod(podID string) []*Container {
	var in []*Container
	for _, c := range s.table.All() {
		if c.PodID == podID {
			in = append(in, c)
		}
	}
	sortNewestFirst(in)
	return in
}

// Subscribe returns all events from now on; see event.Topic for size and for
// what happens to slow readers.
func (s *Service) Subscribe(size int) (<-chan Event, func()) { return s.events.Subscribe(size) }

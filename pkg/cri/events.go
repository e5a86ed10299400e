package cri

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/pod"
)

// maxUnread is how many events a reader may be behind.
const maxUnread = 1000

// Events answers the call for the events of containers, of which CRI takes a pod
// for one.
type Events struct {
	Pods *Pods
	// Stopping, where set, ends all streams when it closes: the daemon stops.
	Stopping <-chan struct{}

	dropped atomic.Int64
}

// Dropped is how many readers have been cut off for being slow.
func (e *Events) Dropped() int64 { return e.dropped.Load() }

// GetContainerEvents sends what happens from now on. The statuses are as they are
// when an event is sent. A reader that falls too far behind gets an error, and the
// state anew when it comes again.
func (e *Events) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
	containers, cancel := e.Pods.Containers.Service.Subscribe(maxUnread)
	defer cancel()
	pods, cancel := e.Pods.Service.Subscribe(maxUnread)
	defer cancel()
	if err := stream.SendHeader(nil); err != nil { // so that the client knows from when on it hears all
		return err
	}
	for {
		batch, open := e.next(stream.Context().Done(), containers, pods)
		for i, n := range batch {
			if err := stream.Send(e.event(n, batch[i:])); err != nil {
				return err
			}
		}
		switch {
		case stream.Context().Err() != nil:
			return stream.Context().Err()
		case !open:
			e.dropped.Add(1)
			return fmt.Errorf("events: the reader is more than %d behind: %w", maxUnread, errs.Exhausted)
		case e.stopped():
			return fmt.Errorf("events: berthd stops: %w", errs.Unavailable)
		}
	}
}

func (e *Events) stopped() bool {
	select {
	case <-e.Stopping: // never, where it is nil
		return true
	default:
		return false
	}
}

// news is an event of a container or, where that is nil, of a pod.
type news struct {
	kind      container.EventType
	at        time.Time
	container *container.Container
	pod       *pod.Sandbox
}

// next waits for events and returns all that there are, in the order in which
// they happened: the two queues know nothing of each other. open is false where
// one of them has been cut off.
func (e *Events) next(done <-chan struct{}, containers <-chan container.Event, pods <-chan pod.Event) (batch []news, open bool) {
	open = true
	take := func(n news, ok bool) {
		if open = open && ok; ok {
			batch = append(batch, n)
		}
	}
	select {
	case <-done:
	case <-e.Stopping:
	case c, ok := <-containers:
		take(ofContainer(c), ok)
	case p, ok := <-pods:
		take(ofPod(p), ok)
	}
	for waiting := true; waiting && open && len(batch) < maxUnread; {
		select {
		case c, ok := <-containers:
			take(ofContainer(c), ok)
		case p, ok := <-pods:
			take(ofPod(p), ok)
		default:
			waiting = false
		}
	}
	slices.SortStableFunc(batch, func(a, b news) int { return a.at.Compare(b.at) })
	return batch, open
}

func ofContainer(e container.Event) news { return news{e.Type, e.At, e.Container, nil} }

func ofPod(e pod.Event) news { return news{e.Type, e.At, nil, e.Pod} }

var eventTypes = map[container.EventType]runtimeapi.ContainerEventType{
	container.EventCreated: runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
	container.EventStarted: runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
	container.EventStopped: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
	container.EventDeleted: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
}

// event fills in the statuses. kubelet ignores an event without the pod's, so a
// pod that is gone is looked for among the events that follow.
func (e *Events) event(n news, following []news) *runtimeapi.ContainerEventResponse {
	out := &runtimeapi.ContainerEventResponse{ContainerEventType: eventTypes[n.kind], CreatedAt: n.at.UnixNano()}
	p := n.pod
	if n.container != nil {
		out.ContainerId = n.container.ID
		p = e.podOf(n.container.PodID, following)
	} else {
		out.ContainerId = p.ID
	}
	if p == nil {
		return out
	}
	if now, err := e.Pods.Service.Get(p.ID); err == nil { // else it is as it was in the end
		p = now
	}
	out.PodSandboxStatus = sandboxStatus(p)
	for _, c := range e.Pods.Containers.Service.InPod(p.ID) {
		out.ContainersStatuses = append(out.ContainersStatuses, e.Pods.Containers.status(c))
	}
	return out
}

func (e *Events) podOf(id string, following []news) *pod.Sandbox {
	if p, err := e.Pods.Service.Get(id); err == nil {
		return p
	}
	for _, n := range following {
		if n.pod != nil && n.pod.ID == id {
			return n.pod
		}
	}
	return nil
}

package nri

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
)

// batch is what one answer of plugins wants of containers.
type batch struct {
	updates []*api.ContainerUpdate
	failed  []*api.ContainerUpdate
	done    chan struct{} // closed once it is applied, where not nil
}

// maxBatches bounds the queue: what comes when it is full is lost, and logged.
const maxBatches = 1024

// updateTimeout bounds the wait for another operation on a container.
const updateTimeout = 10 * time.Second

// updates are what plugins want, in the order in which they said so.
type updates struct {
	fresh chan struct{} // has one item when there are batches

	mu      sync.Mutex
	waiting []*batch
}

// put adds a batch and never blocks.
func (u *updates) put(b *batch) bool {
	if len(b.updates) == 0 && b.done == nil {
		return true
	}
	u.mu.Lock()
	full := len(u.waiting) >= maxBatches
	if !full {
		u.waiting = append(u.waiting, b)
	}
	u.mu.Unlock()
	if full {
		klog.Background().Error(errs.Exhausted, "NRI plugins ask for more updates than can be made: some are lost", "updates", len(b.updates))
		return false
	}
	select {
	case u.fresh <- struct{}{}:
	default:
	}
	return true
}

func (u *updates) take() []*batch {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.waiting
	u.waiting = nil
	return all
}

// wait returns once b, and with it all that came before, is applied.
func (s *Service) wait(ctx context.Context, b *batch) error {
	b.done = make(chan struct{})
	if !s.updates.put(b) {
		return errs.Exhausted
	}
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run applies updates and tells plugins of the containers that end, until ctx
// does. It returns nil then.
func (s *Service) Run(ctx context.Context) error {
	var ends sync.WaitGroup
	ends.Go(func() { s.follow(ctx) })
	defer ends.Wait()
	for {
		select {
		case <-s.updates.fresh:
		case <-ctx.Done():
			return nil
		}
		for _, b := range s.updates.take() {
			s.apply(ctx, b)
			if b.done != nil {
				close(b.done)
			}
		}
	}
}

// apply makes the updates of a batch. What fails is logged.
func (s *Service) apply(ctx context.Context, b *batch) {
	for _, u := range b.updates {
		if err := s.update(ctx, u); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot update a container as an NRI plugin asks", "container", u.GetContainerId())
			if !u.GetIgnoreFailure() {
				b.failed = append(b.failed, u)
			}
		}
	}
}

// update makes one update. A container that has ended needs none.
func (s *Service) update(ctx context.Context, u *api.ContainerUpdate) error {
	c, err := s.node.Containers.Get(u.GetContainerId())
	if errors.Is(err, errs.NotFound) || err == nil && c.Status.State == container.Exited {
		return nil
	}
	if err != nil {
		return err
	}
	limits, err := criLimits(u.GetLinux().GetResources())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	err = s.node.Containers.SetLimits(ctx, c.ID, limits)
	if errors.Is(err, errs.NotFound) || errors.Is(err, errs.Conflict) {
		return nil // it has ended meanwhile
	}
	return err
}

// unsolicited makes updates that a plugin asks for by itself, and returns those
// that failed.
func (s *Service) unsolicited(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	b := &batch{updates: updates}
	if err := s.wait(ctx, b); err != nil {
		return updates, fmt.Errorf("update containers: %w", err)
	}
	return b.failed, nil
}

// follow tells plugins of containers that end by themselves.
func (s *Service) follow(ctx context.Context) {
	for {
		select {
		case <-s.came:
		case <-ctx.Done():
			return
		}
		for !s.idle() && ctx.Err() == nil {
			events, cancel := s.node.Containers.Subscribe(64)
			release := s.Hold()
			s.tellEnds(ctx) // those before, or while a queue was too full
			release()
			s.forward(ctx, events)
			cancel()
		}
	}
}

// forward returns when ctx ends, the queue has been cut off, or nobody is there
// any more.
func (s *Service) forward(ctx context.Context, events <-chan container.Event) {
	for !s.idle() {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			if e.Type == container.EventStopped {
				release := s.Hold()
				s.stopped(ctx, e.Container)
				release()
			}
		case <-s.came: // somebody has come or gone
		case <-ctx.Done():
			return
		}
	}
}

// tellEnds tells plugins of all containers that have ended and that they do not
// know it of. The caller holds new ones out.
func (s *Service) tellEnds(ctx context.Context) {
	s.telling.Lock()
	defer s.telling.Unlock()
	for _, id := range s.containers.living() {
		if c, err := s.node.Containers.Get(id); err == nil && c.Status.State == container.Exited {
			s.stoppedLocked(ctx, c)
		}
	}
}

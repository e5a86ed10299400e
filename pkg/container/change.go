package container

import (
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// change replaces a container's status: disk, then memory, then those who
// listen. It does nothing for a container that is gone, and nothing where the
// status stays. A status that cannot be written holds nevertheless: after a
// restart the runtime tells it again.
func (s *Service) change(ctx context.Context, id string, f func(Status) Status) {
	unlock, err := s.records.Lock(context.WithoutCancel(ctx), id)
	if err != nil {
		return // never: the context does not end
	}
	defer unlock()
	c := s.table.Get(id)
	if c == nil {
		return
	}
	next := f(c.Status)
	if next == c.Status {
		return
	}
	if err := s.writeStatus(id, next); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot write the status of a container", "container", id, "state", next.State)
	}
	changed := *c
	changed.Status = next
	s.table.Put(id, &changed)
	if next.State == c.Status.State {
		return
	}
	switch next.State {
	case Running:
		s.events.Publish(Event{EventStarted, &changed, time.Now()})
	case Exited:
		close(changed.exited)
		s.events.Publish(Event{EventStopped, &changed, time.Now()})
	}
}

// look asks the runtime for the container's state, records it, and returns the
// container as it is then.
func (s *Service) look(ctx context.Context, id string) (*Container, error) {
	listed, err := s.d.Runtime.List(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.Get(id)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(listed, func(r runtime.Container) bool { return r.ID == id })
	s.change(ctx, id, func(st Status) Status {
		if i < 0 && c.waits() {
			return st
		}
		if i < 0 {
			return st.lost(time.Now())
		}
		return st.observe(listed[i])
	})
	return s.Get(id)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
)

// Open reads the records. One that cannot be read does not keep it from
// succeeding: Recover takes its container down. Call Recover before the first
// request, and Run beside them.
func Open(d Deps) (*Service, error) {
	if d.Plugins == nil {
		d.Plugins = noPlugins{}
	}
	s := &Service{d: d, paths: paths{d.Root}}
	if err := s.openAll(); err != nil {
		return nil, fmt.Errorf("open containers: %w", err)
	}
	return s, nil
}

// leftovers are directories that are not containers: what a killed daemon left,
// and what Create and Remove are at work on.
type leftovers struct {
	mu     sync.Mutex
	found  map[string]error // id → why it is not a container
	worker map[string]bool
}

func (l *leftovers) add(id string, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found == nil {
		l.found = map[string]error{}
	}
	l.found[id] = why
}

func (l *leftovers) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.found, id)
}

func (l *leftovers) all() map[string]error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.found)
}

func (l *leftovers) working(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker == nil {
		l.worker = map[string]bool{}
	}
	l.worker[id] = true
}

func (l *leftovers) worked(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.worker, id)
}

func (l *leftovers) isWorking(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker[id]
}

// Recover joins the records with what the runtime has: exits that nobody heard
// of are recorded, containers that are half made or unknown are taken down.
// Call it before the first request. Where the runtime does not answer the error
// is errs.Unavailable, and Run does the same work once it does.
func (s *Service) Recover(ctx context.Context) error {
	for id, why := range s.leftovers.all() {
		if errors.Is(why, errIncomplete) {
			continue
		}
		klog.FromContext(ctx).Error(why, "A container's record cannot be read: it is set aside and the container taken down", "container", id)
		if _, err := statefile.Quarantine(s.dir(id)); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot set a record aside", "container", id)
		}
	}
	return s.reconcile(ctx)
}

// Run follows the runtime's events until ctx ends, and returns nil then. After
// each break it compares everything, so no exit is missed.
func (s *Service) Run(ctx context.Context) error {
	const first, last = 50 * time.Millisecond, 2 * time.Second
	wait := first
	for ctx.Err() == nil {
		subscribed := false
		err := s.d.Runtime.Events(ctx, func(e runtime.Event) {
			switch e.Type {
			case runtime.Subscribed:
				subscribed = true
				if err := s.reconcile(ctx); err != nil && ctx.Err() == nil {
					klog.FromContext(ctx).Error(err, "Cannot compare containers with the runtime's")
				}
			case runtime.Exited:
				s.change(ctx, e.Container.ID, func(st Status) Status { return st.observe(e.Container) })
			}
		})
		if subscribed {
			wait = first
		}
		klog.FromContext(ctx).V(2).Info("The runtime's events broke off", "err", err, "retry", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, last)
		}
	}
	return nil
}

// reconcile brings every status up to what the runtime says.
func (s *Service) reconcile(ctx context.Context) error {
	known := s.table.All() // before the list: what is made meanwhile is in neither
	listed, err := s.d.Runtime.List(ctx)
	if err != nil {
		return err
	}
	there := map[string]runtime.Container{}
	for _, r := range listed {
		there[r.ID] = r
	}
	for _, c := range known {
		if r, ok := there[c.ID]; ok {
			s.change(ctx, c.ID, func(st Status) Status { return st.observe(r) })
			s.thaw(ctx, r)
		} else if c.Status.State != Exited && !c.waits() && !s.leftovers.isWorking(c.ID) {
			s.change(ctx, c.ID, func(st Status) Status { return st.lost(time.Now()) })
		}
	}
	return s.sweep(ctx, s.strangers(there))
}

// strangers returns what is not a container and nobody is at work on: half-made
// ones, and the runtime's that have no record.
func (s *Service) strangers(there map[string]runtime.Container) []string {
	ids := slices.Collect(maps.Keys(s.leftovers.all()))
	for id := range there {
		if s.table.Get(id) == nil && !s.leftovers.isWorking(id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// sweep takes strangers down.
func (s *Service) sweep(ctx context.Context, ids []string) error {
	var failed error
	for _, id := range ids {
		if err := s.takeDown(ctx, id); err != nil {
			failed = errors.Join(failed, fmt.Errorf("take container %s down: %w", id, err))
			s.leftovers.add(id, errIncomplete)
			continue
		}
		s.leftovers.forget(id)
		klog.FromContext(ctx).Info("Took down what was left of a container", "container", id)
	}
	return failed
}

// Check looks for containers that are half made, that the runtime has without a
// record, and that it lost; with repair it takes them down or records it.
func (s *Service) Check(ctx context.Context, repair bool) ([]Problem, error) {
	known := s.table.All()
	listed, err := s.d.Runtime.List(ctx)
	if err != nil {
		return nil, err
	}
	there := map[string]runtime.Container{}
	for _, r := range listed {
		there[r.ID] = r
	}
	var problems []Problem
	for _, c := range known {
		if _, ok := there[c.ID]; !ok && c.Status.State != Exited && !c.waits() && !s.leftovers.isWorking(c.ID) {
			problems = append(problems, Problem{Object: c.ID, What: "the runtime does not know this container, which should be " + string(c.Status.State)})
		}
	}
	for _, id := range s.strangers(there) {
		problems = append(problems, Problem{Object: id, What: "is left over from a container that was half made or half removed"})
	}
	if !repair {
		return problems, nil
	}
	err = s.reconcile(ctx)
	for i := range problems {
		problems[i].Repaired = err == nil
	}
	return problems, nil
}

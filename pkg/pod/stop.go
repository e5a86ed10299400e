package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
)

// operationTimeout bounds what goes on although its caller has gone away.
const operationTimeout = 4 * time.Minute

// lock takes the lock of the pod that key names and returns it as it is then,
// with a context that outlives the caller's: what is begun is finished.
func (s *Service) lock(ctx context.Context, key string) (context.Context, *Sandbox, func(), error) {
	p, err := s.Get(key)
	if err != nil {
		return nil, nil, nil, err
	}
	unlock, err := s.locks.Lock(ctx, p.ID)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("wait for another operation on pod %s: %w", p.ID, err)
	}
	if p, err = s.Get(p.ID); err != nil { // it may have been removed meanwhile
		unlock()
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
	return ctx, p, func() { cancel(); unlock() }, nil
}

// Stop kills the pod's containers and gives back its network, namespaces and
// mounts. It is idempotent, and goes on where an earlier one failed. The error
// is errs.NotFound for a pod that is not there.
func (s *Service) Stop(ctx context.Context, id string) error {
	ctx, p, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return s.stop(ctx, p)
}

func (s *Service) stop(ctx context.Context, p *Sandbox) error {
	if p.released {
		return nil
	}
	stopped := *p
	stopped.State = NotReady
	s.table.Put(p.ID, &stopped) // no container is made from now on
	err := s.eachContainer(p.ID, func(c *container.Container) error { return s.d.Containers.Kill(ctx, c.ID) })
	if err == nil {
		s.d.Plugins.Stopped(ctx, &stopped)
		err = s.release(ctx, p.ID)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("stop pod %s: %w", p.ID, err), s.writeState(&stopped))
	}
	released := stopped
	released.released = true
	s.table.Put(p.ID, &released)
	s.events.Publish(Event{container.EventStopped, &released, time.Now()})
	return s.writeState(&released)
}

// release gives back all that a pod holds outside of its records. It needs only
// the id and works on any remainder.
func (s *Service) release(ctx context.Context, id string) error {
	if err := stage.Run(ctx, "network detach", func(ctx context.Context) error { return s.d.Network.Detach(ctx, id) }); err != nil {
		return err
	}
	if err := s.d.Runtime.DeletePod(ctx, id); err != nil {
		return err
	}
	return s.removeFiles(id)
}

// eachContainer calls f for all containers of a pod at once. One that is gone
// meanwhile is no error.
func (s *Service) eachContainer(id string, f func(*container.Container) error) error {
	var wg sync.WaitGroup
	all := s.d.Containers.InPod(id)
	failed := make([]error, len(all))
	for i, c := range all {
		wg.Go(func() {
			if err := f(c); !errors.Is(err, errs.NotFound) {
				failed[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// Remove stops the pod, removes its containers and forgets it. The error is
// errs.NotFound for a pod that is not there. A Remove that fails half-way can be
// repeated.
func (s *Service) Remove(ctx context.Context, id string) error {
	ctx, p, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.stop(ctx, p); err != nil {
		return err
	}
	s.halves.begin(p.ID)
	defer s.halves.end(p.ID)
	if err := s.forget(ctx, p.ID); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.ID, err)
	}
	s.names.Release(nameKey(p.Config), p.ID)
	s.table.Delete(p.ID)
	gone := *p
	gone.State = NotReady
	s.events.Publish(Event{container.EventDeleted, &gone, time.Now()})
	s.d.Plugins.Removed(ctx, &gone)
	return nil
}

// forget removes the containers and the records of a pod that holds nothing any
// more.
func (s *Service) forget(ctx context.Context, id string) error {
	err := s.eachContainer(id, func(c *container.Container) error { return s.d.Containers.Remove(ctx, c.ID) })
	if err != nil {
		return err
	}
	if err := os.Remove(s.statePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(s.dir(id))
}

// takeDown removes a pod of which anything may be missing.
func (s *Service) takeDown(ctx context.Context, id string) error {
	err := s.eachContainer(id, func(c *container.Container) error { return s.d.Containers.Remove(ctx, c.ID) })
	if err == nil {
		err = s.release(ctx, id)
	}
	if err != nil {
		return err
	}
	return s.forget(ctx, id)
}

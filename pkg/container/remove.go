package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Remove kills what still runs and forgets the container with all that it had
// but its log. The error is errs.NotFound for one that is not there. A Remove
// that fails half-way can be repeated.
func (s *Service) Remove(ctx context.Context, id string) error {
	c, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := detach(ctx)
	defer cancel()
	s.leftovers.working(c.ID)
	defer s.leftovers.worked(c.ID)
	if c.Status.State != Exited {
		if err := ignoreNotFound(s.d.Runtime.Delete(ctx, c.ID)); err != nil {
			return fmt.Errorf("remove container %s: %w", c.ID, err)
		}
		s.change(ctx, c.ID, func(st Status) Status { return st.end(time.Now(), exitKilled, reasonError, "removed while it ran") })
	}
	if err := s.takeDown(ctx, c.ID); err != nil {
		return fmt.Errorf("remove container %s: %w", c.ID, err)
	}
	s.names.Release(nameKey(c.PodID, c.Config), c.ID)
	s.table.Delete(c.ID)
	s.events.Publish(Event{EventDeleted, c, time.Now()})
	s.d.Plugins.Tell(ctx, StepRemoved, c)
	return nil
}

// takeDown removes all that a container has, from the end of its making to the
// beginning. It needs only the id and works on any remainder.
func (s *Service) takeDown(ctx context.Context, id string) error {
	if err := os.Remove(s.statePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := ignoreNotFound(s.d.Runtime.Delete(ctx, id)); err != nil {
		return err
	}
	if err := s.d.Images.Unmount(ctx, id); err != nil {
		return err
	}
	if err := s.tidy(id); err != nil {
		return err
	}
	return os.RemoveAll(s.dir(id))
}

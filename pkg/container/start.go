package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// operationTimeout bounds what goes on although its caller has gone away.
const operationTimeout = 2 * time.Minute

// detach gives an operation that must not stop half-way a context that outlives
// its caller.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), operationTimeout)
}

// Start lets a created container run. One that runs already is not an error:
// its caller may not have heard so. The error is errs.Conflict for one that has
// ended.
func (s *Service) Start(ctx context.Context, id string) error {
	c, unlock, err := s.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	switch c.Status.State {
	case Running:
		return nil
	case Exited:
		return fmt.Errorf("start container %s: it has ended: %w", c.ID, errs.Conflict)
	}
	ctx, cancel := detach(ctx)
	defer cancel()
	var started runtime.Container
	if err = s.d.Plugins.Start(ctx, c); err == nil {
		started, err = s.begin(ctx, c)
	}
	if err != nil {
		if err = s.startFailed(ctx, c.ID, err); err != nil {
			return fmt.Errorf("start container %s: %w", c.ID, err)
		}
		return nil
	}
	s.change(ctx, c.ID, func(st Status) Status { return st.observe(started) })
	s.d.Plugins.Tell(ctx, StepStarted, s.table.Get(c.ID))
	return nil
}

// startFailed records that a container cannot be started, where that is what
// the error says. It returns nil for one that runs all the same: an earlier
// Start's answer was lost.
func (s *Service) startFailed(ctx context.Context, id string, err error) error {
	switch {
	case errors.Is(err, errs.Unavailable), errors.Is(err, errs.Timeout):
		return err // it may have started: the runtime will tell
	case errors.Is(err, errs.Conflict): // it runs, or was killed meanwhile, which then is its end
		c, look := s.look(ctx, id)
		if look == nil && c.Status.State == Running {
			return nil
		}
		return errors.Join(err, look)
	}
	// Before the kill, whose end is not the reason.
	s.change(ctx, id, func(st Status) Status { return st.end(time.Now(), exitStartError, reasonStartError, err.Error()) })
	kill := s.d.Runtime.Kill(ctx, runtime.KillRequest{ID: id, Signal: sigKill, All: true})
	return errors.Join(err, ignoreNotFound(kill))
}

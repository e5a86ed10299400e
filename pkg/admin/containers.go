package admin

import (
	"context"
	"errors"
	"fmt"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// Kill sends a signal to a container.
func (s *Server) Kill(ctx context.Context, r *apiv1.KillRequest) (*apiv1.KillResponse, error) {
	if r.Signal < 1 || r.Signal > 64 {
		return nil, fmt.Errorf("kill container %s: there is no signal %d: %w", r.ContainerId, r.Signal, errs.Invalid)
	}
	err := s.deps.Runtime.Kill(ctx, runtime.KillRequest{ID: r.ContainerId, Signal: int(r.Signal), All: r.All})
	return &apiv1.KillResponse{}, err
}

// errEnded stops a subscription that has seen what it waited for.
var errEnded = errors.New("container ended")

// Wait returns once the container has ended. It subscribes before it looks, so
// that an exit between the two is not missed, nor one while berth-runtime was
// away.
func (s *Server) Wait(ctx context.Context, r *apiv1.WaitRequest) (*apiv1.WaitResponse, error) {
	w := &waiter{runtime: s.deps.Runtime, id: r.ContainerId}
	ctx, cancel := untilStopping(ctx, s.deps.Stopping)
	defer cancel(nil)
	err := runtime.Outlast(ctx, w.subscribe)
	if errors.Is(err, errEnded) {
		return w.end, nil
	}
	if err = stoppedBy(ctx, err); errors.Is(err, errs.Unavailable) {
		err = fmt.Errorf("wait for container %s: %w", r.ContainerId, err)
	}
	return nil, err
}

// errStopping tells clients to look for the next daemon.
var errStopping = fmt.Errorf("berthd is stopping: %w", errs.Unavailable)

// untilStopping returns a context that ends with the daemon too, because of
// errStopping then. The caller cancels it.
func untilStopping(ctx context.Context, stopping <-chan struct{}) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with ctx
		select {
		case <-stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// stoppedBy is err, or why it came where that is the daemon's end.
func stoppedBy(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStopping) {
		return errStopping
	}
	return err
}

// waiter looks for the end of one container in the runtime's events.
type waiter struct {
	runtime runtime.Runtime
	id      string
	end     *apiv1.WaitResponse
}

// subscribe returns errEnded once end is set.
func (w *waiter) subscribe(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = w.runtime.Events(ctx, func(e runtime.Event) {
		connected = true
		if err := w.see(ctx, e); err != nil {
			cancel(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return connected, cause
	}
	if err == nil {
		err = errs.Unavailable
	}
	return connected, err
}

// see returns errEnded once end is set, or why waiting makes no sense.
func (w *waiter) see(ctx context.Context, e runtime.Event) error {
	switch {
	case w.end != nil:
		return nil
	case e.Type == runtime.Subscribed:
		return w.look(ctx)
	case e.Type == runtime.Exited && e.Container.ID == w.id:
		return w.ended(e.Container)
	}
	return nil
}

func (w *waiter) look(ctx context.Context) error {
	all, err := w.runtime.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		switch {
		case c.ID != w.id:
		case c.State == runtime.Stopped:
			return w.ended(c)
		default:
			return nil
		}
	}
	return fmt.Errorf("container %s: %w", w.id, errs.NotFound)
}

func (w *waiter) ended(c runtime.Container) error {
	w.end = &apiv1.WaitResponse{ExitCode: c.ExitCode, OomKilled: c.OOMKilled}
	return errEnded
}

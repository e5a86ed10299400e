package supervisor

import (
	"context"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
)

// eventQueue is how many events a subscriber may be behind.
const eventQueue = 4096

func (w *worker) list() []runtime.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]runtime.Container, 0, len(w.containers))
	for _, c := range w.containers {
		all = append(all, c.get())
	}
	return all
}

// subscribe sends events until the caller goes or falls behind.
func (w *worker) subscribe(ctx context.Context, call *rpc.Call) error {
	call.Long()
	events, cancel := w.events.Subscribe(eventQueue)
	defer cancel()
	if err := call.Send(runtime.Event{Type: runtime.Subscribed}); err != nil {
		return err
	}
	for {
		select {
		case e, open := <-events:
			if !open {
				return fmt.Errorf("subscriber is %d events behind: %w", eventQueue, errs.Unavailable)
			}
			if err := call.Send(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Package runtimetest holds a runtime.Runtime in memory, for tests of what
// decides, and the conformance suite that it and berth-runtime both pass.
package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/event"
	"github.com/berth-run/berth/pkg/runtime"
)

// Fake is a Runtime without processes. A container runs from Start until Exit,
// or until a signal: SIGKILL and SIGTERM end it with 128 plus their number. Set
// its fields before the first call.
type Fake struct {
	// Fail, where set, is asked before each call, with its verb (as in
	// runtime.VerbStart) and id; an error fails the call without effect.
	Fail func(verb, id string) error
	// OnExec, where set, answers Exec.
	OnExec func(runtime.ExecRequest) (runtime.ExecResult, error)
	// OnStream, where set, is the process of ExecStream, and returns its exit code.
	OnStream func(runtime.ExecRequest, runtime.ExecIO) int32
	// IgnoreTerm makes containers survive SIGTERM.
	IgnoreTerm bool

	events event.Topic[runtime.Event]

	mu         sync.Mutex
	pods       map[string]runtime.PodRequest
	containers map[string]*fakeContainer
	calls      []string
	pid        int
}

type fakeContainer struct {
	runtime.Container
	request runtime.CreateRequest
	updates []runtime.UpdateRequest
	exited  chan struct{}
}

var _ runtime.Runtime = (*Fake)(nil)

// begin notes the call and asks Fail.
func (f *Fake) begin(ctx context.Context, verb, id string) error {
	f.mu.Lock()
	f.calls = append(f.calls, verb+" "+id)
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.Fail == nil {
		return nil
	}
	return f.Fail(verb, id)
}

// Calls returns the calls so far, each as verb and id.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Pods returns the requests of the pods that are there.
func (f *Fake) Pods() map[string]runtime.PodRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.pods)
}

// Request returns what the container was created with.
func (f *Fake) Request(id string) (runtime.CreateRequest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	if c == nil {
		return runtime.CreateRequest{}, false
	}
	return c.request, true
}

// Updates returns the container's updates so far.
func (f *Fake) Updates(id string) []runtime.UpdateRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		return slices.Clone(c.updates)
	}
	return nil
}

// Exit ends the container by itself.
func (f *Fake) Exit(id string, code int32, oomKilled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.containers[id]; c != nil {
		f.exitLocked(c, code, oomKilled)
	}
}

func (f *Fake) exitLocked(c *fakeContainer, code int32, oomKilled bool) {
	if c.State == runtime.Stopped {
		return
	}
	c.State, c.PID, c.ExitCode, c.OOMKilled, c.FinishedAt = runtime.Stopped, 0, code, oomKilled, time.Now()
	close(c.exited)
	f.events.Publish(runtime.Event{Type: runtime.Exited, Container: c.Container})
}

// findLocked returns the container, or errs.NotFound.
func (f *Fake) findLocked(id string) (*fakeContainer, error) {
	c := f.containers[id]
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, errs.NotFound)
	}
	return c, nil
}

// on runs do with the container while nobody else uses it.
func (f *Fake) on(ctx context.Context, verb, id string, do func(*fakeContainer) error) error {
	if err := f.begin(ctx, verb, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.findLocked(id)
	if err != nil {
		return err
	}
	return do(c)
}

// expect refuses a container in another state.
func expect(c *fakeContainer, states ...runtime.State) error {
	if !slices.Contains(states, c.State) {
		return fmt.Errorf("container %s is %s: %w", c.ID, c.State, errs.Conflict)
	}
	return nil
}

// CreatePod implements runtime.Pods.
func (f *Fake) CreatePod(ctx context.Context, r runtime.PodRequest) error {
	if err := f.begin(ctx, runtime.VerbCreatePod, r.ID); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.pods[r.ID]; ok && !reflect.DeepEqual(old, r) {
		return fmt.Errorf("pod %s: %w", r.ID, errs.Conflict)
	}
	if f.pods == nil {
		f.pods = map[string]runtime.PodRequest{}
	}
	f.pods[r.ID] = r
	return nil
}

// DeletePod implements runtime.Pods.
func (f *Fake) DeletePod(ctx context.Context, id string) error {
	if err := f.begin(ctx, runtime.VerbDeletePod, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, id)
	return nil
}

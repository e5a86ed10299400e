package runtimetest

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/runtime"
)

// Create implements runtime.Containers.
func (f *Fake) Create(ctx context.Context, r runtime.CreateRequest) (runtime.Container, error) {
	if err := f.begin(ctx, runtime.VerbCreate, r.ID); err != nil {
		return runtime.Container{}, err
	}
	if r.ID == "" || r.Spec == nil || r.Spec.Process == nil || r.Spec.Root == nil {
		return runtime.Container{}, fmt.Errorf("container %q: incomplete: %w", r.ID, errs.Invalid)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.containers[r.ID] != nil {
		return runtime.Container{}, fmt.Errorf("container %s: %w", r.ID, errs.Exists)
	}
	if f.containers == nil {
		f.containers = map[string]*fakeContainer{}
	}
	f.pid++
	c := &fakeContainer{
		Container: runtime.Container{ID: r.ID, PodID: r.PodID, State: runtime.Created, PID: 1 + f.pid, CreatedAt: time.Now()},
		request:   r,
		exited:    make(chan struct{}),
	}
	f.containers[r.ID] = c
	return c.Container, nil
}

// Start implements runtime.Containers.
func (f *Fake) Start(ctx context.Context, id string) (k runtime.Container, err error) {
	err = f.on(ctx, runtime.VerbStart, id, func(c *fakeContainer) error {
		if err := expect(c, runtime.Created); err != nil {
			return err
		}
		c.State, c.StartedAt = runtime.Running, time.Now()
		k = c.Container
		return nil
	})
	return k, err
}

// Kill implements runtime.Containers.
func (f *Fake) Kill(ctx context.Context, r runtime.KillRequest) error {
	return f.on(ctx, runtime.VerbKill, r.ID, func(c *fakeContainer) error {
		switch sig := syscall.Signal(r.Signal); {
		case sig == syscall.SIGKILL, sig == syscall.SIGTERM && !f.IgnoreTerm:
			f.exitLocked(c, 128+int32(sig), false)
		}
		return nil
	})
}

// Delete implements runtime.Containers.
func (f *Fake) Delete(ctx context.Context, id string) error {
	return f.on(ctx, runtime.VerbDelete, id, func(c *fakeContainer) error {
		f.exitLocked(c, 128+int32(syscall.SIGKILL), false)
		delete(f.containers, id)
		return nil
	})
}

// Update implements runtime.Containers.
func (f *Fake) Update(ctx context.Context, r runtime.UpdateRequest) error {
	return f.on(ctx, runtime.VerbUpdate, r.ID, func(c *fakeContainer) error {
		c.updates = append(c.updates, r)
		return expect(c, runtime.Created, runtime.Running, runtime.Paused)
	})
}

// Exec implements runtime.Processes.
func (f *Fake) Exec(ctx context.Context, r runtime.ExecRequest) (runtime.ExecResult, error) {
	err := f.on(ctx, runtime.VerbExec, r.ID, func(c *fakeContainer) error { return expect(c, runtime.Running) })
	if err != nil || f.OnExec == nil {
		return runtime.ExecResult{}, err
	}
	return f.OnExec(r)
}

// Pause implements runtime.Processes.
func (f *Fake) Pause(ctx context.Context, id string) error {
	return f.change(ctx, runtime.VerbPause, id, runtime.Running, runtime.Paused)
}

// Resume implements runtime.Processes.
func (f *Fake) Resume(ctx context.Context, id string) error {
	return f.change(ctx, runtime.VerbResume, id, runtime.Paused, runtime.Running)
}

func (f *Fake) change(ctx context.Context, verb, id string, from, to runtime.State) error {
	return f.on(ctx, verb, id, func(c *fakeContainer) error {
		if err := expect(c, from); err != nil {
			return err
		}
		c.State = to
		return nil
	})
}

// Attach implements runtime.Streams: it waits for the container's end.
func (f *Fake) Attach(ctx context.Context, r runtime.AttachRequest, _ runtime.AttachIO) error {
	var exited chan struct{}
	err := f.on(ctx, runtime.VerbAttach, r.ID, func(c *fakeContainer) error {
		exited = c.exited
		return expect(c, runtime.Created, runtime.Running, runtime.Paused)
	})
	if err != nil {
		return err
	}
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Resize implements runtime.Streams.
func (f *Fake) Resize(ctx context.Context, id string, _, _ uint16) error {
	return f.on(ctx, runtime.VerbResize, id, func(c *fakeContainer) error {
		if !c.request.Spec.Process.Terminal {
			return fmt.Errorf("container %s has no terminal: %w", id, errs.Conflict)
		}
		return nil
	})
}

// ReopenLog implements runtime.Streams.
func (f *Fake) ReopenLog(ctx context.Context, id string) error {
	return f.on(ctx, runtime.VerbReopenLog, id, func(c *fakeContainer) error {
		return expect(c, runtime.Created, runtime.Running, runtime.Paused)
	})
}

// List implements runtime.Observer.
func (f *Fake) List(ctx context.Context) ([]runtime.Container, error) {
	if err := f.begin(ctx, runtime.VerbList, ""); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []runtime.Container{}
	for _, c := range f.containers {
		all = append(all, c.Container)
	}
	return all, nil
}

// Events implements runtime.Observer.
func (f *Fake) Events(ctx context.Context, g func(runtime.Event)) error {
	if err := f.begin(ctx, runtime.VerbEvents, ""); err != nil {
		return err
	}
	events, cancel := f.events.Subscribe(1024)
	defer cancel()
	g(runtime.Event{Type: runtime.Subscribed})
	for {
		select {
		case e, open := <-events:
			if !open {
				return errs.Unavailable
			}
			g(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Version implements runtime.Observer.
func (f *Fake) Version(ctx context.Context) (runtime.Version, error) {
	return runtime.Version{Version: "fake", CgroupDriver: "cgroupfs"}, f.begin(ctx, runtime.VerbVersion, "")
}

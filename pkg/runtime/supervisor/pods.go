package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/stage"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
)

// podLimit bounds the taking down of a pod, which holds the pod's lock.
const podLimit = 30 * time.Second

// podRecord is what is on disk about a pod. It is written before the engine is
// called, so that whatever a killed call made can be undone.
type podRecord struct {
	Version int                `json:"version"`
	Request runtime.PodRequest `json:"request"`
	InitPID int                `json:"initPid,omitempty"`
	// InitBegun tells PID 1 from a later process of its number; 0 in the
	// records of older versions.
	InitBegun uint64 `json:"initBegun,omitempty"`
	Done      bool   `json:"done,omitempty"`
}

// pods makes and deletes pods.
type pods struct {
	o      *Options
	engine runtime.EnginePods
	locks  *keylock.Locks // the worker's
}

// podLock is the lock of a pod, whose id a container may bear too.
func podLock(id string) string { return "pod/" + id }

func (p *pods) create(ctx context.Context, r runtime.PodRequest) error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	unlock, err := p.locks.Lock(ctx, podLock(r.ID))
	if err != nil {
		return err
	}
	defer unlock()
	var old podRecord
	err = statefile.Read(p.o.pod(r.ID), &old)
	switch {
	case err == nil && !reflect.DeepEqual(old.Request, r):
		return fmt.Errorf("pod %s is there with another request: %w", r.ID, errs.Conflict)
	case err == nil && old.Done:
		return nil
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err == nil {
		// A worker died while it made the pod.
		if err := p.takeDown(ctx, &old); err != nil {
			return err
		}
	}
	return p.make(ctx, r)
}

// takeDown goes on where nobody waits for it any more, but not for ever: a
// process may not end.
func (p *pods) takeDown(ctx context.Context, rec *podRecord) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), podLimit)
	defer cancel()
	pid := rec.InitPID
	if rec.InitBegun != 0 {
		if since, err := pidfd.Begun(pid); err != nil || since != rec.InitBegun {
			pid = 0 // it is gone, and its number perhaps another's
		}
	}
	return p.engine.DeletePod(ctx, rec.Request, pid)
}

func (p *pods) make(ctx context.Context, r runtime.PodRequest) error {
	rec := podRecord{Version: recordVersion, Request: r}
	path := p.o.pod(r.ID)
	if err := statefile.Write(path, &rec); err != nil {
		return err
	}
	var pid int
	err := stage.Run(ctx, "namespaces", func(ctx context.Context) (err error) {
		pid, err = p.engine.CreatePod(ctx, r)
		return err
	})
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	rec.InitPID, rec.Done = pid, true
	if pid != 0 {
		rec.InitBegun, err = pidfd.Begun(pid)
	}
	if err == nil {
		err = statefile.Write(path, &rec)
	}
	if err == nil && ctx.Err() == nil {
		return nil
	}
	err = errors.Join(err, ctx.Err())
	if stuck := p.takeDown(ctx, &rec); stuck != nil {
		rec.Done = false // whoever asks next tries again
		return errors.Join(err, stuck, statefile.Write(path, &rec))
	}
	return errors.Join(err, os.Remove(path))
}

func (p *pods) delete(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	unlock, err := p.locks.Lock(ctx, podLock(id))
	if err != nil {
		return err
	}
	defer unlock()
	var rec podRecord
	err = statefile.Read(p.o.pod(id), &rec)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := p.takeDown(ctx, &rec); err != nil {
		return err
	}
	return os.Remove(p.o.pod(id))
}

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/runtime"
)

// podRecord is what is on disk about a pod. It is written before the engine is
// called, so that whatever a killed call made can be undone.
type podRecord struct {
	Version int                `json:"version"`
	Request runtime.PodRequest `json:"request"`
	InitPID int                `json:"initPid,omitempty"`
	Done    bool               `json:"done,omitempty"`
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
		if err := p.undo(ctx, &old); err != nil {
			return err
		}
	}
	return p.make(ctx, r)
}

// undoPod takes down what a worker left that died while it made the pod.
func (p *pods) undo(ctx context.Context, half *podRecord) error {
	return p.engine.DeletePod(context.WithoutCancel(ctx), half.Request, half.InitPID)
}

func (p *pods) make(ctx context.Context, r runtime.PodRequest) error {
	rec := podRecord{Version: recordVersion, Request: r}
	path := p.o.pod(r.ID)
	if err := statefile.Write(path, &rec); err != nil {
		return err
	}
	pid, err := p.engine.CreatePod(ctx, r)
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	rec.InitPID, rec.Done = pid, true
	err = statefile.Write(path, &rec)
	if err == nil && ctx.Err() == nil {
		return nil
	}
	ctxErr := ctx.Err()
	ctx = context.WithoutCancel(ctx)
	return errors.Join(err, ctxErr, p.engine.DeletePod(ctx, r, pid), os.Remove(path))
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
	if err := p.engine.DeletePod(context.WithoutCancel(ctx), rec.Request, rec.InitPID); err != nil {
		return err
	}
	return os.Remove(p.o.pod(id))
}

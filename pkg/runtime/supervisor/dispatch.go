package supervisor

import (
	"context"
	"fmt"
	"os"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
)

// handle serves one call.
func (w *worker) handle(ctx context.Context, c *rpc.Call) (any, error) {
	defer w.trimmer.Touch()
	switch c.Verb {
	case runtime.VerbVersion:
		return w.version(), nil
	case runtime.VerbList:
		return w.list(), nil
	case runtime.VerbEvents:
		return nil, w.subscribe(ctx, c)
	case runtime.VerbCreate, runtime.VerbCreateBy:
		return with(ctx, c, w.create)
	case runtime.VerbStart:
		return with(ctx, c, func(ctx context.Context, r runtime.IDRequest) (any, error) { return w.start(ctx, r.ID) })
	case runtime.VerbRestore:
		return with(ctx, c, w.restoreDump)
	case runtime.VerbExec:
		return with(ctx, c, func(ctx context.Context, m runtime.CaptureMessage) (any, error) { return w.exec(ctx, c, m) })
	case runtime.VerbExecIO:
		return with(ctx, c, func(ctx context.Context, m runtime.ExecMessage) (any, error) { return w.execStream(ctx, c, &m) })
	case runtime.VerbAttach:
		return with(ctx, c, func(ctx context.Context, m runtime.AttachMessage) (any, error) { return nil, w.attach(ctx, c, m) })
	}
	return nil, w.handleSimple(ctx, c)
}

// handleSimple serves the verbs that answer with nothing.
func (w *worker) handleSimple(ctx context.Context, c *rpc.Call) error {
	switch c.Verb {
	case runtime.VerbCreatePod:
		return do(ctx, c, w.pods.create)
	case runtime.VerbDeletePod:
		return do(ctx, c, func(ctx context.Context, r runtime.IDRequest) error { return w.pods.delete(ctx, r.ID) })
	case runtime.VerbKill:
		return do(ctx, c, w.kill)
	case runtime.VerbDelete:
		return do(ctx, c, func(ctx context.Context, r runtime.IDRequest) error { return w.delete(ctx, r.ID) })
	case runtime.VerbUpdate:
		return do(ctx, c, w.updateResources)
	case runtime.VerbPause:
		return do(ctx, c, func(ctx context.Context, r runtime.IDRequest) error { return w.freeze(ctx, r.ID, true) })
	case runtime.VerbResume:
		return do(ctx, c, func(ctx context.Context, r runtime.IDRequest) error { return w.freeze(ctx, r.ID, false) })
	case runtime.VerbCanCheckpoint:
		return w.engine.CanCheckpoint(ctx)
	case runtime.VerbCheckpoint:
		return do(ctx, c, w.checkpoint)
	case runtime.VerbResize:
		return do(ctx, c, w.resize)
	case runtime.VerbReopenLog:
		return do(ctx, c, func(ctx context.Context, r runtime.IDRequest) error { return w.reopenLog(ctx, r.ID) })
	}
	return fmt.Errorf("verb %q: %w", c.Verb, errs.Unsupported)
}

func with[R, A any](ctx context.Context, c *rpc.Call, f func(context.Context, R) (A, error)) (any, error) {
	var r R
	if err := c.Decode(&r); err != nil {
		return nil, err
	}
	return f(ctx, r)
}

func do[R any](ctx context.Context, c *rpc.Call, f func(context.Context, R) error) error {
	_, err := with(ctx, c, func(ctx context.Context, r R) (any, error) { return nil, f(ctx, r) })
	return err
}

func (w *worker) version() runtime.Version {
	return runtime.Version{
		Version:      w.o.Version,
		AnchorPID:    os.Getppid(),
		WorkerPID:    os.Getpid(),
		CgroupDriver: w.o.CgroupDriver,
		Limits:       w.limits,
	}
}

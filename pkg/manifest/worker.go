package manifest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/manifest/podspec"
)

const (
	// pollEvery bounds how late a change that nobody told of is seen.
	pollEvery = time.Second
	// removeRetry is how long a delete that failed waits.
	removeRetry = 2 * time.Second
)

// worker keeps one pod as its manifest says. Its goroutine alone touches the
// record.
type worker struct {
	deps   *Deps
	store  store
	record *record
	hash   string // the record's
	seen   observed
	status atomic.Pointer[apiv1.ManifestStatus]
	kick   chan struct{} // holds a token while there is something to look at
	gone   chan struct{} // closed once the goroutine has ended
	// removed tells, once gone is closed, that the pod was taken away rather
	// than left by a daemon that ends.
	removed bool

	mu       sync.Mutex
	deleting bool
	cancel   context.CancelFunc // of what the goroutine does now
}

func newWorker(d *Deps, r *record) *worker {
	w := &worker{deps: d, store: store{d.Root}, record: r, hash: r.Hash, deleting: r.Deleting, kick: make(chan struct{}, 1), gone: make(chan struct{})}
	w.publish(nil, "")
	return w
}

// notify makes the worker look at its pod soon. It never blocks.
func (w *worker) notify() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// delete makes the worker take its pod away. What it does now, a long pull for
// one, is given up.
func (w *worker) delete() {
	w.mu.Lock()
	w.deleting = true
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	w.notify()
}

func (w *worker) isDeleting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deleting
}

// run works until ctx ends or the pod is taken away.
func (w *worker) run(ctx context.Context) {
	defer close(w.gone)
	for {
		wait := w.turn(ctx)
		if w.removed {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-w.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// turn does what is to be done now and returns when to look again.
func (w *worker) turn(ctx context.Context) time.Duration {
	ctx, deleting, done := w.begin(ctx)
	defer done()
	if deleting {
		return w.remove(ctx)
	}
	next, err := w.sync(ctx)
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Pod of a manifest was not brought on", "pod", podspec.NameOf(w.record.Pod))
		w.publish(nil, err.Error())
	}
	return next
}

// begin gives one turn a context that a delete cancels, unless it is the
// delete's own.
func (w *worker) begin(ctx context.Context) (turn context.Context, deleting bool, done func()) {
	turn, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.deleting {
		w.cancel = cancel
	}
	return turn, w.deleting, func() {
		w.mu.Lock()
		w.cancel = nil
		w.mu.Unlock()
		cancel()
	}
}

func (w *worker) remove(ctx context.Context) time.Duration {
	if !w.record.Deleting {
		w.record.Deleting = true
		if err := w.store.save(w.record); err != nil {
			w.publish(nil, err.Error())
			return removeRetry
		}
	}
	w.publish(nil, "")
	if err := w.removePod(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Pod of a manifest was not removed", "pod", podspec.NameOf(w.record.Pod))
		w.publish(nil, err.Error())
		return removeRetry
	}
	w.removed = true
	return 0
}

// sync looks at the pod and does what decide says.
func (w *worker) sync(ctx context.Context) (time.Duration, error) {
	o, err := w.deps.observe(ctx, string(w.record.Pod.UID))
	if err != nil {
		return pollEvery, err
	}
	for _, id := range o.older {
		if err := w.removeContainer(ctx, id); err != nil {
			return pollEvery, err
		}
	}
	d := decide(w.record, o, time.Now())
	switch {
	case d.finished != "":
		return pollEvery, w.finish(ctx, o, d)
	case d.sandbox:
		return w.newSandbox(ctx, o, d)
	}
	for _, s := range d.start {
		w.start(ctx, o, s)
		if ctx.Err() != nil {
			return 0, nil
		}
	}
	if len(d.start) > 0 {
		// What was started changes what is to be done next.
		return 0, w.refresh(ctx, d)
	}
	w.report(o, d)
	return w.untilNext(d), nil
}

func (w *worker) untilNext(d decision) time.Duration {
	if d.retry.IsZero() {
		return pollEvery
	}
	return min(max(time.Until(d.retry), time.Millisecond), pollEvery)
}

func (w *worker) refresh(ctx context.Context, d decision) error {
	o, err := w.deps.observe(ctx, string(w.record.Pod.UID))
	if err == nil {
		w.report(o, d)
	}
	return err
}

func (w *worker) newSandbox(ctx context.Context, o observed, d decision) (time.Duration, error) {
	var err error
	if w.record.keepSuccesses(o) {
		err = w.store.save(w.record)
	}
	if err == nil {
		err = w.startSandbox(ctx, o, d.attempt)
	}
	if err != nil {
		w.record.sandbox.fail(time.Now(), reasonNewSandbox, err)
		return pollEvery, err
	}
	w.record.sandbox.clear()
	return 0, nil
}

// finish notes that the pod is over, once, and stops what still runs of it.
func (w *worker) finish(ctx context.Context, o observed, d decision) error {
	if w.record.Finished == "" {
		w.report(o, d)
		w.record.Finished = d.finished
		if err := w.store.save(w.record); err != nil {
			return err
		}
	}
	if o.sandbox == nil {
		w.report(o, d)
		return nil
	}
	return w.stopPod(ctx, o)
}

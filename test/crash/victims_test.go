package crash

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/berth-run/berth/pkg/runtime"
	testnode "github.com/berth-run/berth/test/node"
	"github.com/berth-run/berth/test/testutil"
)

// victim is who is killed.
type victim struct {
	name                   string
	daemon, anchor, worker bool
}

var victims = []victim{
	{name: "berthd", daemon: true},
	{name: "worker", worker: true},
	{name: "anchor", anchor: true},
	{name: "both", daemon: true, worker: true},
}

// target is a victim as it was found: the processes to kill.
type target struct {
	victim
	runtime runtime.Version
	daemon  int
}

// find looks up the processes that serve now.
func (v victim) find() (*target, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(returnLimit))
	defer cancel()
	t := &target{victim: v, daemon: berth.DaemonPID()}
	var err error
	t.runtime, err = berth.Supervisor().Version(ctx)
	return t, err
}

// kill kills them all at once.
func (t *target) kill() error {
	var failed []error
	for pid, dies := range map[int]bool{t.daemon: t.victim.daemon, t.runtime.AnchorPID: t.anchor, t.runtime.WorkerPID: t.worker} {
		if dies {
			failed = append(failed, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	return errors.Join(failed...)
}

// returnLimit bounds how long the dead may take to be replaced.
const returnLimit = 20 * time.Second

// replace starts berthd again, where it was killed, and waits until
// berth-runtime has replaced what it lost.
func (t *target) replace() error {
	if t.victim.daemon {
		if err := berth.Kill(); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		if err := berth.Start(); err != nil {
			return fmt.Errorf("start berthd again: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), testutil.Patience(returnLimit))
	defer cancel()
	return testnode.Until(ctx, func() error {
		now, err := berth.Supervisor().Version(ctx)
		switch {
		case err != nil:
			return err
		case t.anchor && now.AnchorPID == t.runtime.AnchorPID, (t.anchor || t.worker) && now.WorkerPID == t.runtime.WorkerPID:
			return fmt.Errorf("the %s has not been replaced: %+v", t.name, now)
		case !t.anchor && now.AnchorPID != t.runtime.AnchorPID:
			return fmt.Errorf("the anchor was %d and is %d, although only the %s was killed", t.runtime.AnchorPID, now.AnchorPID, t.name)
		}
		return nil
	})
}

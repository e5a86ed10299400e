package image

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/image/upkeep"
)

// Problem is something that Check or Verify has found.
type Problem = upkeep.Problem

// VerifyProgress tells which object Verify reads, and how far it is.
type VerifyProgress = upkeep.VerifyProgress

const collectEvery = time.Hour

// Run verifies what the machine may have lost when it stopped, and removes, at
// once and then each hour, what pulls that were cancelled or failed have left and
// nobody has gone on from for a day. It returns nil once ctx has ended.
func (s *Service) Run(ctx context.Context) error {
	s.suspects.Run(ctx)
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		if err := s.keeper.CollectOld(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Could not remove what pulls have left")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Check compares what is on disk with what the records say, and with repair
// mends what can be mended: garbage is removed, and so is damaged content, which
// the next pull brings again. containers, where it is not nil, returns
// the ids whose root file systems are meant to be; others are left-overs.
func (s *Service) Check(ctx context.Context, repair bool, containers func() []string) ([]Problem, error) {
	return s.keeper.Check(ctx, repair, containers)
}

// Verify reads every byte of all blobs and layers again, and returns what is
// damaged. With repair, damaged blobs are removed and damaged layers set aside;
// the next pull of an image brings what it lacks. progress may be nil.
func (s *Service) Verify(ctx context.Context, repair bool, progress func(VerifyProgress)) ([]Problem, error) {
	return s.keeper.Verify(ctx, repair, progress)
}

// clean removes at once what nothing uses; the files of it, too.
func (s *Service) clean(ctx context.Context) error {
	return upkeep.Finish(s.keeper.Collect(context.WithoutCancel(ctx), 0))
}

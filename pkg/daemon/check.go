package daemon

import (
	"context"

	"github.com/berth-run/berth/pkg/admin"
	"github.com/berth-run/berth/pkg/image"
)

// checkers are the stores that `berth check` asks: who holds something before
// what is held, so that a repair frees it first.
func (s *services) checkers() []admin.Checker {
	return []admin.Checker{
		{Store: "container", Check: func(ctx context.Context, repair bool) ([]admin.Problem, error) {
			found, err := s.containers.Check(ctx, repair)
			return problems(found), err
		}},
		{Store: "pod", Check: func(ctx context.Context, repair bool) ([]admin.Problem, error) {
			found, err := s.pods.Check(ctx, repair)
			return problems(found), err
		}},
		{Store: "network", Check: func(ctx context.Context, repair bool) ([]admin.Problem, error) {
			found, err := s.network.Check(ctx, s.pods.IDs(), repair)
			return problems(found), err
		}},
		{Store: "image", Check: func(ctx context.Context, repair bool) ([]admin.Problem, error) {
			found, err := s.images.Check(ctx, repair, s.containerIDs)
			return problems(found), err
		}, Verify: func(ctx context.Context, repair bool, progress func(admin.Progress)) ([]admin.Problem, error) {
			found, err := s.images.Verify(ctx, repair, func(p image.VerifyProgress) { progress(admin.Progress(p)) })
			return problems(found), err
		}},
	}
}

// problem is the form that every store has for its own.
type problem interface {
	~struct {
		Object   string
		What     string
		Repaired bool
	}
}

func problems[P problem](found []P) []admin.Problem {
	var out []admin.Problem
	for _, p := range found {
		out = append(out, admin.Problem(p))
	}
	return out
}

// containerIDs are those whose root file systems are meant to be mounted.
func (s *services) containerIDs() []string {
	var ids []string
	for _, c := range s.containers.List() {
		ids = append(ids, c.ID)
	}
	return ids
}

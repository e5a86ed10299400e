package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

// Problem is something that Check found.
type Problem struct {
	Object   string // what it is about, such as a pod's id
	What     string // in words
	Repaired bool
}

// Check compares the records with live, the ids of all pods that may have a
// network, and asks the plugins whether each attachment is whole (CNI CHECK).
// With repair, it removes records that could not be read, detaches what no live pod owns or what was never completed,
// and lets the plugins collect their garbage (CNI GC). A live pod whose
// network is not whole is only reported: mending it is the pod's owner's
// decision.
func (s *Service) Check(ctx context.Context, live []string, repair bool) ([]Problem, error) {
	problems, err := s.checkFiles(repair)
	if err != nil {
		return nil, err
	}
	for _, r := range s.records.All() {
		if err := ctx.Err(); err != nil {
			return problems, err
		}
		if p, bad := s.checkRecord(ctx, r, slices.Contains(live, r.PodID), repair); bad {
			problems = append(problems, p)
		}
	}
	if repair {
		problems = append(problems, s.collect(ctx)...)
	}
	return problems, nil
}

// checkFiles reports what was set aside, and removes it with repair: Open has
// done for its pod what could be done.
func (s *Service) checkFiles(repair bool) ([]Problem, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var problems []Problem
	for _, e := range entries {
		if statefile.Leftover(e.Name()) && strings.Contains(e.Name(), ".json.") {
			p := Problem{Object: e.Name(), What: "record could not be read"}
			if repair {
				if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
					return nil, err
				}
				p.Repaired = true
			}
			problems = append(problems, p)
		}
	}
	return problems, nil
}

func (s *Service) checkRecord(ctx context.Context, r *record, live, repair bool) (Problem, bool) {
	switch {
	case s.inFlight(r):
		return Problem{}, false
	case !live:
		return s.detachProblem(ctx, r, "network of a pod that does not exist", repair), true
	case r.Phase != phaseAttached:
		return s.detachProblem(ctx, r, "attaching was cut short", repair), true
	}
	if err := s.checkPlugins(ctx, r); err != nil {
		return Problem{Object: r.PodID, What: err.Error()}, true
	}
	return Problem{}, false
}

// inFlight says whether a record may be of an Attach that is running, or of a
// pod that the caller's list was too early for.
func (s *Service) inFlight(r *record) bool {
	return r.CreatedAt.After(s.opened) && time.Since(r.CreatedAt) < s.opts.Timeout
}

func (s *Service) detachProblem(ctx context.Context, r *record, what string, repair bool) Problem {
	p := Problem{Object: r.PodID, What: what}
	if !repair {
		return p
	}
	if err := s.detachIfSame(ctx, r); err != nil {
		p.What = fmt.Sprintf("%s: %v", what, err)
		return p
	}
	p.Repaired = true
	return p
}

// detachIfSame detaches the pod unless something has happened to it since r was
// read.
func (s *Service) detachIfSame(ctx context.Context, r *record) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	unlock, err := s.pods.Lock(ctx, r.PodID)
	if err != nil {
		return err
	}
	defer unlock()
	if s.records.Get(r.PodID) != r {
		return nil
	}
	return s.detachLocked(ctx, r.PodID)
}

func (s *Service) checkPlugins(ctx context.Context, r *record) error {
	if !isNetNS(r.NetNS) {
		return fmt.Errorf("network namespace %s is gone", r.NetNS)
	}
	for i := range r.Attachments {
		a := &r.Attachments[i]
		list, err := a.list()
		if err != nil {
			return err
		}
		err = s.cni.of(list.Name).CheckNetworkList(ctx, list, r.runtimeConf(a.IfName, r.NetNS))
		if err != nil && !errors.Is(err, libcni.ErrorCheckNotSupp) {
			return fmt.Errorf("network %s: %w", a.Network, err)
		}
	}
	return nil
}

// collect lets each network in use forget all attachments but those of the
// records. No ADD runs meanwhile: libcni would take its result for garbage.
func (s *Service) collect(ctx context.Context) []Problem {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	s.collecting.Lock()
	defer s.collecting.Unlock()
	var problems []Problem
	for _, n := range s.conf.Load().networks {
		args := &libcni.GCArgs{ValidAttachments: attachments(s.records.All(), n.list.Name)}
		if err := s.cni.of(n.list.Name).GCNetworkList(ctx, n.list, args); err != nil {
			problems = append(problems, Problem{Object: n.list.Name, What: fmt.Sprintf("collect garbage: %v", err)})
		}
	}
	return problems
}

func attachments(all []*record, network string) []types.GCAttachment {
	valid := []types.GCAttachment{}
	for _, r := range all {
		for _, a := range r.Attachments {
			if a.Network == network {
				valid = append(valid, types.GCAttachment{ContainerID: r.PodID, IfName: a.IfName})
			}
		}
	}
	return valid
}

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/internal/join"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// Open reads the records. One that cannot be read does not keep it from
// succeeding: Recover takes its pod down. Call Recover before the first request.
func Open(d Deps) (*Service, error) {
	if d.Plugins == nil {
		d.Plugins = noPlugins{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{d: d, paths: paths{d.Root, d.State, d.NetNSDir}, runs: join.New[string](ctx), creates: join.New[string](ctx), cancel: cancel}
	if err := s.openAll(); err != nil {
		cancel()
		return nil, fmt.Errorf("open pods: %w", err)
	}
	return s, nil
}

// halves are pods that are not whole: found so after a restart, or being made
// or removed now.
type halves struct {
	mu     sync.Mutex
	found  map[string]error // id → why it is not a pod
	worked map[string]bool
}

func (h *halves) add(id string, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.found == nil {
		h.found = map[string]error{}
	}
	h.found[id] = why
}

func (h *halves) begin(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.worked == nil {
		h.worked = map[string]bool{}
	}
	h.worked[id] = true
}

// end forgets a half: it is whole now, or gone. One whose removal failed stays
// on disk, where strangers finds it.
func (h *halves) end(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.worked, id)
}

func (h *halves) ids() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []string
	for id := range h.worked {
		ids = append(ids, id)
	}
	return ids
}

// corrupt returns the pods whose records are there but cannot be read.
func (h *halves) corrupt() map[string]error {
	h.mu.Lock()
	defer h.mu.Unlock()
	bad := map[string]error{}
	for id, why := range h.found {
		if !errors.Is(why, errIncomplete) {
			bad[id] = why
		}
	}
	return bad
}

// Recover takes down what a killed daemon left half made, and marks the pods
// that a reboot has ended. Call it after the containers' own Recover.
func (s *Service) Recover(ctx context.Context) error {
	log := klog.FromContext(ctx)
	for id, why := range s.halves.corrupt() {
		log.Error(why, "A pod's record cannot be read: it is set aside and the pod taken down", "pod", id)
		if _, err := statefile.Quarantine(s.dir(id)); err != nil {
			log.Error(err, "Cannot set a record aside", "pod", id)
		}
		s.halves.add(id, errIncomplete)
	}
	for _, p := range s.table.All() {
		if p.State == Ready && !s.standing(p) {
			log.Info("A pod did not survive a restart of the machine", "pod", p.ID)
			ended := *p
			ended.State = NotReady
			s.table.Put(p.ID, &ended)
			if err := s.writeState(&ended); err != nil {
				log.Error(err, "Cannot write the state of a pod", "pod", p.ID)
			}
		}
	}
	return s.sweep(ctx, s.strangers())
}

// standing tells whether what the pod's containers share is still there.
func (s *Service) standing(p *Sandbox) bool {
	if _, err := os.Stat(s.stateDir(p.ID)); err != nil {
		return false
	}
	for _, path := range p.namespaces {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil || int64(st.Type) != unix.NSFS_MAGIC {
			return false
		}
	}
	return true
}

// strangers returns the ids of what is not a pod and nobody is at work on:
// directories and containers without their pod. Network namespaces need no
// look: a pod's directories are there before its pin and go after it, and the
// pins may lie beside those of another daemon.
func (s *Service) strangers() []string {
	var ids []string
	for id := range s.halves.unfinished() {
		ids = append(ids, id)
	}
	for _, dir := range []string{s.home(), s.stateHome()} {
		names, _ := directories(dir) // one that cannot be read has been reported by Open
		ids = append(ids, names...)
	}
	for _, c := range s.d.Containers.List() {
		ids = append(ids, c.PodID)
	}
	slices.Sort(ids)
	working := s.halves.ids()
	return slices.DeleteFunc(slices.Compact(ids), func(id string) bool {
		return s.table.Get(id) != nil || slices.Contains(working, id)
	})
}

// unfinished returns what Open found to be half a pod.
func (h *halves) unfinished() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := map[string]bool{}
	for id := range h.found {
		ids[id] = true
	}
	return ids
}

// sweep takes strangers down.
func (s *Service) sweep(ctx context.Context, ids []string) error {
	var failed error
	for _, id := range ids {
		if err := s.takeDown(ctx, id); err != nil {
			failed = errors.Join(failed, fmt.Errorf("take pod %s down: %w", id, err))
			continue
		}
		s.halves.forget(id)
		klog.FromContext(ctx).Info("Took down what was left of a pod", "pod", id)
	}
	return failed
}

func (h *halves) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.found, id)
}

// Check looks for pods that are half made, and for those that claim to be ready
// and have lost their namespaces. With repair it takes the former down and
// marks the latter.
func (s *Service) Check(ctx context.Context, repair bool) ([]Problem, error) {
	var problems []Problem
	for _, p := range s.table.All() {
		if p.State == Ready && !s.standing(p) {
			problems = append(problems, Problem{Object: p.ID, What: "is recorded as ready but its namespaces are gone"})
		}
	}
	for _, id := range s.strangers() {
		problems = append(problems, Problem{Object: id, What: "is left over from a pod that was half made or half removed"})
	}
	if !repair {
		return problems, nil
	}
	err := s.Recover(ctx)
	for i := range problems {
		problems[i].Repaired = err == nil
	}
	return problems, err
}

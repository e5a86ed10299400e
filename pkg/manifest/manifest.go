// Package manifest runs Kubernetes Pod manifests without Kubernetes: it is a
// small kubelet for `berth apply`, driving the daemon's CRI servers in process.
//
// Each applied pod has a record on disk and a worker goroutine. A worker looks
// at what CRI says is there, decides by a pure function what is to be done
// (decide), does it, and looks again:
//
//	record ─┐
//	        ├─▶ decide ─▶ new sandbox │ start containers │ finish │ wait
//	CRI ────┘
//
// so that a daemon restarted at any point goes on where it was. Containers are
// restarted with kubelet's back-off, 10 s doubling to 5 minutes. The package
// refuses, by name, every field that it cannot honour, and warns of those that
// mean nothing without a cluster.
//
// It also ends the pods of `berth run` once their container has ended (tidy).
//
// On disk: <root>/manifests/pods, one record for each pod, and
// <root>/manifests/volumes, their emptyDirs; <root>/logs/UID, their logs. A
// Service's lock guards the map of workers only; a worker's lock only whether
// it deletes. Neither is held across slow work, nor both at once.
package manifest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/manifest/podspec"
)

// Deps is all that a Service needs. Every field but NodeMemory is required.
type Deps struct {
	// Root is the daemon's root directory.
	Root       string
	NodeName   string
	NodeMemory int64 // bytes, for out-of-memory scores; 0 is unknown
	Pods       Pods
	Containers Containers
	Images     Images
}

// Service runs applied pods. Its methods may be called concurrently.
type Service struct {
	deps  Deps
	store store
	life  context.Context // the Service's own, ended by Close
	end   context.CancelFunc
	wg    sync.WaitGroup
	names keylock.Locks // one Apply or Delete of a name at a time
	tidy  *tidier

	mu      sync.Mutex
	workers map[podspec.Name]*worker
}

// Open loads the records and goes on with their pods. A record that cannot be
// read is set aside with a log line. Close ends the work; the pods run on.
func Open(ctx context.Context, d Deps) (*Service, error) {
	s := &Service{deps: d, store: store{d.Root}, workers: map[podspec.Name]*worker{}}
	records, bad, err := s.store.load()
	if err != nil {
		return nil, fmt.Errorf("load manifests: %w", err)
	}
	for _, err := range bad {
		klog.FromContext(ctx).Error(err, "Record of a manifest was set aside")
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.tidy = newTidier(&s.deps)
	s.wg.Go(func() { s.tidy.run(s.life) })
	for _, r := range records {
		s.add(r)
	}
	return s, nil
}

// Close ends the workers and waits for them.
func (s *Service) Close() error {
	s.end()
	s.wg.Wait()
	return nil
}

// Notify tells that a container has ended, so that the pods are looked at now
// rather than within a second. It never blocks.
func (s *Service) Notify() {
	s.tidy.notify()
	for _, w := range s.all() {
		w.notify()
	}
}

func (s *Service) all() []*worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*worker, 0, len(s.workers))
	for _, w := range s.workers {
		all = append(all, w)
	}
	return all
}

func (s *Service) worker(n podspec.Name) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers[n]
}

func (s *Service) add(r *record) {
	w := newWorker(&s.deps, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers[podspec.NameOf(r.Pod)] = w
	s.wg.Go(func() {
		w.run(s.life)
		if !w.removed {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.workers[podspec.NameOf(r.Pod)] == w {
			delete(s.workers, podspec.NameOf(r.Pod))
		}
	})
}

// Apply runs the pods of a manifest: new ones are made, changed ones replaced,
// others left alone. It returns once all are recorded, not once they run; a
// replaced pod has ended by then.
func (s *Service) Apply(ctx context.Context, r *apiv1.ApplyRequest) (*apiv1.ApplyResponse, error) {
	documents, err := podspec.Parse(r.Manifest)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.ApplyResponse{}
	for _, d := range documents {
		resp.Warnings = append(resp.Warnings, d.Warnings...)
		action, err := s.apply(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("pod %q: %w", d.Pod.Name, err)
		}
		resp.Applied = append(resp.Applied, &apiv1.ApplyResponse_Applied{Namespace: d.Pod.Namespace, Name: d.Pod.Name, Action: action})
	}
	return resp, nil
}

func (s *Service) apply(ctx context.Context, d podspec.Document) (action string, err error) {
	name := podspec.NameOf(d.Pod)
	unlock, err := s.names.Lock(ctx, name.String())
	if err != nil {
		return "", err
	}
	defer unlock()
	r, err := newRecord(d.Pod, time.Now())
	if err != nil {
		return "", err
	}
	action = "created"
	if old := s.worker(name); old != nil {
		if old.hash == r.Hash && !old.isDeleting() {
			return "unchanged", nil
		}
		action = "replaced"
		if err := s.remove(ctx, old); err != nil {
			return "", err
		}
	}
	if r.Pod.UID == "" {
		r.Pod.UID = newUID()
	}
	if err := s.store.save(r); err != nil {
		return "", err
	}
	s.add(r)
	return action, nil
}

// Delete ends pods and takes them away. It returns once they are gone; a caller
// that does not wait leaves them Terminating.
func (s *Service) Delete(ctx context.Context, r *apiv1.DeleteManifestRequest) (*apiv1.DeleteManifestResponse, error) {
	names, err := podspec.ParseNames(r.Manifest)
	if err != nil {
		return nil, err
	}
	for _, p := range r.Pods {
		names = append(names, podspec.Name{Namespace: p.Namespace, Name: p.Name}.OrDefault())
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no pod is named: %w", errs.Invalid)
	}
	// All end at the same time: each may take its whole grace period.
	found := make([]bool, len(names))
	failed := make([]error, len(names))
	var deletes sync.WaitGroup
	for i, n := range names {
		deletes.Go(func() { found[i], failed[i] = s.delete(ctx, n) })
	}
	deletes.Wait()
	resp := &apiv1.DeleteManifestResponse{}
	for i, n := range names {
		p := &apiv1.PodName{Namespace: n.Namespace, Name: n.Name}
		switch {
		case failed[i] != nil:
			return nil, fmt.Errorf("pod %q: %w", n.Name, failed[i])
		case found[i]:
			resp.Deleted = append(resp.Deleted, p)
		default:
			resp.Missing = append(resp.Missing, p)
		}
	}
	return resp, nil
}

func (s *Service) delete(ctx context.Context, n podspec.Name) (found bool, err error) {
	unlock, err := s.names.Lock(ctx, n.String())
	if err != nil {
		return false, err
	}
	defer unlock()
	w := s.worker(n)
	if w == nil {
		return false, nil
	}
	return true, s.remove(ctx, w)
}

// remove waits until the worker has taken its pod away.
func (s *Service) remove(ctx context.Context, w *worker) error {
	w.delete()
	select {
	case <-w.gone:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !w.removed {
		return fmt.Errorf("the daemon is ending: %w", errs.Unavailable)
	}
	return nil
}

// List tells how the applied pods are, by name. It waits for nothing.
func (s *Service) List(context.Context) (*apiv1.ListManifestsResponse, error) {
	resp := &apiv1.ListManifestsResponse{}
	for _, w := range s.all() {
		resp.Pods = append(resp.Pods, w.status.Load())
	}
	slices.SortFunc(resp.Pods, func(a, b *apiv1.ManifestStatus) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return resp, nil
}

// newUID returns a random UUID.
func newUID() types.UID {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails since Go 1.24
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

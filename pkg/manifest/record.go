package manifest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth/pkg/internal/statefile"
	"github.com/berth-run/berth/pkg/manifest/podspec"
)

// recordVersion is that of the format below.
const recordVersion = 1

// record is one applied pod on disk: what is wanted, and what a restart of the
// daemon must not forget. What runs is not in it: CRI tells.
type record struct {
	Version   int         `json:"version"`
	Pod       *corev1.Pod `json:"pod"`
	Hash      string      `json:"hash"`
	CreatedAt time.Time   `json:"createdAt"`
	// Deleting is set from the moment that a delete was asked for.
	Deleting bool `json:"deleting,omitempty"`
	// Finished is the last phase, Succeeded or Failed, of a pod that is over.
	Finished   corev1.PodPhase            `json:"finished,omitempty"`
	Containers map[string]*containerState `json:"containers,omitempty"`

	sandbox failure // of making the sandbox; not kept
}

// containerState is what is kept of a container between its attempts.
type containerState struct {
	// Attempts counts those begun.
	Attempts int32   `json:"attempts"`
	BackOff  backOff `json:"backOff,omitzero"`
	// Succeeded tells, of one that is restarted on failure alone, that it ended
	// well in a sandbox that is gone.
	Succeeded bool `json:"succeeded,omitempty"`

	start failure // of the last try to start it; not kept
}

func (s *containerState) restarts() int32 { return max(s.Attempts-1, 0) }

// failure is why something could not be begun, and when it is tried again.
type failure struct {
	at              time.Time
	reason, message string
	backOff         backOff
}

// fail notes a failed try; the next one waits.
func (f *failure) fail(now time.Time, reason string, err error) {
	f.backOff.attempt(now, now)
	f.at, f.reason, f.message = now, reason, err.Error()
}

// until is when the next try may be made.
func (f *failure) until() time.Time { return f.backOff.until(f.at) }

func (f *failure) clear() { *f = failure{} }

func newRecord(p *corev1.Pod, now time.Time) (*record, error) {
	sum, err := podspec.Hash(p)
	if err != nil {
		return nil, err
	}
	return &record{Version: recordVersion, Pod: p, Hash: sum, CreatedAt: now, Containers: map[string]*containerState{}}, nil
}

func (r *record) container(name string) *containerState {
	s := r.Containers[name]
	if s == nil {
		s = &containerState{}
		if r.Containers == nil {
			r.Containers = map[string]*containerState{}
		}
		r.Containers[name] = s
	}
	return s
}

// keepSuccesses notes which containers need not run again, before they go with
// their sandbox, and tells whether there are new ones.
func (r *record) keepSuccesses(o observed) (changed bool) {
	if r.Pod.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	for _, c := range r.Pod.Spec.Containers {
		if state := r.container(c.Name); !state.Succeeded && hasSucceeded(r, o.containers[c.Name], c.Name) {
			state.Succeeded, changed = true, true
		}
	}
	return changed
}

// store keeps the records: <root>/manifests/pods/NAMESPACE_NAME.json, and the
// pods' volumes under <root>/manifests/volumes/UID. Neither part of a name may
// hold '_'.
type store struct{ root string }

func (s store) podsDir() string { return filepath.Join(s.root, "manifests", "pods") }

func (s store) path(n podspec.Name) string {
	return filepath.Join(s.podsDir(), n.Namespace+"_"+n.Name+".json")
}

func (s store) volumes(uid string) string { return filepath.Join(s.root, "manifests", "volumes", uid) }

// logs is where the admin API puts the logs of pods without a kubelet too.
func (s store) logs(uid string) string { return filepath.Join(s.root, "logs", uid) }

func (s store) save(r *record) error {
	return statefile.WriteDurable(s.path(podspec.NameOf(r.Pod)), r)
}

func (s store) remove(n podspec.Name) error {
	err := os.Remove(s.path(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// load returns all records. One that cannot be read is set aside and its error
// returned beside the others.
func (s store) load() ([]*record, []error, error) {
	if err := os.MkdirAll(s.podsDir(), 0o700); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(s.podsDir())
	if err != nil {
		return nil, nil, err
	}
	var all []*record
	var bad []error
	for _, e := range entries {
		if statefile.Leftover(e.Name()) {
			continue
		}
		path := filepath.Join(s.podsDir(), e.Name())
		r := &record{}
		err := statefile.Read(path, r)
		if err == nil && (r.Version != recordVersion || r.Pod == nil || s.path(podspec.NameOf(r.Pod)) != path || podspec.Validate(r.Pod) != nil) {
			err = statefile.ErrCorrupt
		}
		if err != nil {
			_, aside := statefile.Quarantine(path)
			bad = append(bad, errors.Join(err, aside))
			continue
		}
		all = append(all, r)
	}
	return all, bad, nil
}

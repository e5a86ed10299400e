package manifest

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// terminating is the phase of a pod that is being deleted.
const terminating = "Terminating"

// report publishes what was seen and decided.
func (w *worker) report(o observed, d decision) {
	w.seen = o
	w.publish(d.waiting, "")
}

// publish publishes what was seen last with what containers wait for now, and
// what went wrong with the pod as a whole.
func (w *worker) publish(waits map[string]waiting, trouble string) {
	r := w.record
	s := &apiv1.ManifestStatus{
		Namespace: r.Pod.Namespace,
		Name:      r.Pod.Name,
		Uid:       string(r.Pod.UID),
		Phase:     phase(r, w.seen),
		Message:   trouble,
		CreatedAt: r.CreatedAt.UnixNano(),
	}
	if w.seen.sandbox != nil {
		s.SandboxId = w.seen.sandbox.Id
	}
	if trouble == "" && r.sandbox.reason != "" {
		s.Reason, s.Message = r.sandbox.reason, r.sandbox.message
	}
	add := func(c *corev1.Container, init bool) {
		v := containerStatus(r, c, w.seen.containers[c.Name], waits)
		v.Init = init
		s.Restarts += v.Restarts
		if v.State == "waiting" && s.Reason == "" && v.Reason != "" {
			s.Reason, s.Message = v.Reason, c.Name+": "+v.Message
		}
		s.Containers = append(s.Containers, v)
	}
	for i := range r.Pod.Spec.InitContainers {
		add(&r.Pod.Spec.InitContainers[i], true)
	}
	for i := range r.Pod.Spec.Containers {
		add(&r.Pod.Spec.Containers[i], false)
	}
	w.status.Store(s)
}

func phase(r *record, o observed) string {
	switch {
	case r.Deleting:
		return terminating
	case r.Finished != "":
		return string(r.Finished)
	case o.sandbox != nil && mainBegun(r.Pod, o):
		return string(corev1.PodRunning)
	}
	return string(corev1.PodPending)
}

func containerStatus(r *record, c *corev1.Container, s *runtimeapi.ContainerStatus, waits map[string]waiting) *apiv1.ManifestContainer {
	v := &apiv1.ManifestContainer{Name: c.Name, State: "waiting", Restarts: r.container(c.Name).restarts()}
	if s != nil {
		v.Id = s.Id
	}
	wait, isWaiting := waits[c.Name]
	switch {
	case isRunning(s):
		v.State = "running"
	case isWaiting && r.Finished == "":
		v.Reason, v.Message = wait.reason, wait.message
	case isExited(s):
		v.State, v.Reason, v.Message, v.ExitCode = "terminated", s.Reason, s.Message, s.ExitCode
	case s == nil && r.container(c.Name).Succeeded:
		v.State, v.Reason = "terminated", "Completed"
	}
	return v
}

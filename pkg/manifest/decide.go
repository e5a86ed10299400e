package manifest

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/manifest/podspec"
)

// decision is what is to be done for a pod now. It is made from what is wanted
// and what is there alone, so that a restarted daemon decides the same.
type decision struct {
	// sandbox asks for a new one of that attempt, in place of all there are.
	sandbox bool
	attempt uint32
	// start are the containers to start, in order.
	start []startStep
	// finished is the last phase of a pod that is over: what still runs of it
	// is stopped.
	finished corev1.PodPhase
	// waiting is why containers are not started now, by name.
	waiting map[string]waiting
	// retry is when one of them may be; zero for never.
	retry time.Time
}

type waiting struct{ reason, message string }

// startStep starts one container. previous is the attempt that it follows.
type startStep struct {
	container *corev1.Container
	previous  *runtimeapi.ContainerStatus
}

// decide looks at a pod that is not being deleted.
func decide(r *record, o observed, now time.Time) decision {
	d := decision{waiting: map[string]waiting{}}
	switch {
	case r.Finished != "":
		d.finished = r.Finished
	case o.sandbox == nil:
		d.withoutSandbox(r, o, now)
	case d.initialized(r, o, now):
		d.main(r, o, now)
	}
	return d
}

// withoutSandbox decides for a pod that has none yet, or whose last one is gone,
// as after a reboot.
func (d *decision) withoutSandbox(r *record, o observed, now time.Time) {
	if d.finished = lastPhase(r, o); d.finished != "" {
		return
	}
	if t := r.sandbox.until(); now.Before(t) {
		d.retryAt(t)
		return
	}
	d.sandbox, d.attempt = true, o.nextAttempt()
}

// lastPhase is how a pod is over that gets no new sandbox, as kubelet has it:
// one that is never restarted and has had containers, and one that is restarted
// on failure and has had none.
func lastPhase(r *record, o observed) corev1.PodPhase {
	policy := r.Pod.Spec.RestartPolicy
	if policy == corev1.RestartPolicyAlways || len(o.containers) == 0 {
		return ""
	}
	succeeded := true
	for _, c := range r.Pod.Spec.Containers {
		succeeded = succeeded && hasSucceeded(r, o.containers[c.Name], c.Name)
	}
	switch {
	case succeeded:
		return corev1.PodSucceeded
	case policy == corev1.RestartPolicyNever:
		return corev1.PodFailed
	}
	return ""
}

func hasSucceeded(r *record, s *runtimeapi.ContainerStatus, name string) bool {
	return isExited(s) && s.ExitCode == 0 || s == nil && r.container(name).Succeeded
}

// initialized brings the init containers on, one after the other, and reports
// whether the others may run. Sidecars among them are kept running for good.
func (d *decision) initialized(r *record, o observed, now time.Time) bool {
	over := mainBegun(r.Pod, o) // regular ones are not looked at again
	for i := range r.Pod.Spec.InitContainers {
		c := &r.Pod.Spec.InitContainers[i]
		s := o.containers[c.Name]
		switch {
		case isRunning(s):
			if !podspec.IsSidecar(c) && !over {
				return false
			}
		case podspec.IsSidecar(c):
			d.startOrWait(r, c, s, now)
			if !over {
				return false
			}
		case over, isExited(s) && s.ExitCode == 0:
		case isExited(s) && r.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever:
			d.finished = corev1.PodFailed
			return false
		default:
			d.startOrWait(r, c, s, now)
			return false
		}
	}
	return true
}

func mainBegun(p *corev1.Pod, o observed) bool {
	for _, c := range p.Spec.Containers {
		if o.containers[c.Name] != nil {
			return true
		}
	}
	return false
}

// main keeps the containers as the restart policy says.
func (d *decision) main(r *record, o observed, now time.Time) {
	alive, failed := false, false
	for i := range r.Pod.Spec.Containers {
		c := &r.Pod.Spec.Containers[i]
		s := o.containers[c.Name]
		switch {
		case isRunning(s):
			alive = true
		case s == nil && r.container(c.Name).Succeeded: // in an earlier sandbox
		case isExited(s) && !restarts(r.Pod.Spec.RestartPolicy, s.ExitCode):
			failed = failed || s.ExitCode != 0
		default:
			alive = true
			d.startOrWait(r, c, s, now)
		}
	}
	switch {
	case alive:
	case failed:
		d.finished = corev1.PodFailed
	default:
		d.finished = corev1.PodSucceeded
	}
}

func restarts(policy corev1.RestartPolicy, exitCode int32) bool {
	return policy == corev1.RestartPolicyAlways || (policy == corev1.RestartPolicyOnFailure && exitCode != 0)
}

// startOrWait starts a container unless it, or the try before, has failed too
// lately.
func (d *decision) startOrWait(r *record, c *corev1.Container, s *runtimeapi.ContainerStatus, now time.Time) {
	state := r.container(c.Name)
	if t := state.start.until(); now.Before(t) {
		d.waiting[c.Name] = waiting{backOffReason(state.start.reason), state.start.message}
		d.retryAt(t)
		return
	}
	if isExited(s) {
		if t := state.BackOff.until(time.Unix(0, s.FinishedAt)); now.Before(t) {
			d.waiting[c.Name] = waiting{"CrashLoopBackOff", "restarts at " + t.Format(time.TimeOnly)}
			d.retryAt(t)
			return
		}
	}
	d.start = append(d.start, startStep{c, s})
}

func (d *decision) retryAt(t time.Time) {
	if d.retry.IsZero() || t.Before(d.retry) {
		d.retry = t
	}
}

// backOffReason is kubelet's word for waiting after a failure.
func backOffReason(reason string) string {
	if reason == reasonPull {
		return "ImagePullBackOff"
	}
	return reason
}

func isRunning(s *runtimeapi.ContainerStatus) bool {
	return s != nil && s.State == runtimeapi.ContainerState_CONTAINER_RUNNING
}

func isExited(s *runtimeapi.ContainerStatus) bool {
	return s != nil && s.State == runtimeapi.ContainerState_CONTAINER_EXITED
}

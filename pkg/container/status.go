package container

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/runtime"
)

// State is where a container is in its life.
type State string

// The states.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// The reasons of ended containers. CRI prescribes OOMKilled; the others are
// what kubelet's users know.
const (
	reasonCompleted  = "Completed"
	reasonError      = "Error"
	reasonOOMKilled  = "OOMKilled"
	reasonStartError = "StartError"
	reasonUnknown    = "Unknown"
)

// The exit codes of containers whose end is ours, or that nobody saw end.
const (
	exitKilled     = 128 + 9 // SIGKILL
	exitStartError = 128
	exitLost       = 255
)

// Status is the part of a Container that changes.
type Status struct {
	State      State     `json:"state"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	// PID is of the host's namespace, 0 once exited.
	PID int `json:"pid,omitempty"`
	// Resources are the limits in force.
	Resources *cri.LinuxContainerResources `json:"-"`
}

// observe returns the status that follows from what the runtime says. States
// only go forward: news that come late change nothing.
func (st Status) observe(r runtime.Container) Status {
	if st.State == Exited {
		return st
	}
	switch r.State {
	case runtime.Created:
		st.PID = r.PID
	case runtime.Running, runtime.Paused:
		st.State, st.StartedAt, st.PID = Running, r.StartedAt, r.PID
	case runtime.Stopped:
		st.StartedAt = r.StartedAt
		if r.ExitCode < 0 {
			return st.lost(r.FinishedAt)
		}
		st = st.end(r.FinishedAt, r.ExitCode, exitReason(r), "")
	}
	return st
}

// end returns the status of a container that has ended, however it did.
func (st Status) end(at time.Time, code int32, reason, message string) Status {
	if st.State == Exited {
		return st
	}
	st.State, st.PID = Exited, 0
	st.FinishedAt, st.ExitCode, st.Reason, st.Message = at, code, reason, message
	return st
}

// lost returns the status of a container that the runtime does not know.
func (st Status) lost(now time.Time) Status {
	return st.end(now, exitLost, reasonUnknown, "the container ended while berth-runtime was not there to see it")
}

func exitReason(r runtime.Container) string {
	switch {
	case r.OOMKilled:
		return reasonOOMKilled
	case r.ExitCode == 0:
		return reasonCompleted
	}
	return reasonError
}

// sigRTMin is the first real-time signal as CRI counts them.
const sigRTMin = 34

// criSignal names a signal as CRI does.
func criSignal(n int) cri.Signal {
	name := unix.SignalName(unix.Signal(n))
	switch {
	case n == sigRTMin:
		name = "SIGRTMIN"
	case n == 64:
		name = "SIGRTMAX"
	case n > sigRTMin && n <= sigRTMin+15:
		name = "SIGRTMINPLUS" + strconv.Itoa(n-sigRTMin)
	case n > sigRTMin && n < 64:
		name = "SIGRTMAXMINUS" + strconv.Itoa(64-n)
	}
	return cri.Signal(cri.Signal_value["SIGNAL_"+name]) // an unknown one is 0, the default
}

func sortNewestFirst(all []*Container) {
	slices.SortFunc(all, func(a, b *Container) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
}

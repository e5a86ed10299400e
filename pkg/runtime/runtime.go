// Package runtime is the contract between berthd, which decides, and
// berth-runtime, which does: the verbs, their messages and the client.
//
// One call is one unix connection (package rpc): framed JSON, with file
// descriptors passed beside it; closing the connection cancels the call. What
// crosses are OCI runtime specs and the plain types below, never CRI's. Errors
// keep their errs.Kind.
//
// The life of a container:
//
//	Create ──▶ created ──Start──▶ running ──exit──▶ stopped ──Delete──▶ (gone)
//	             │                  │ ▲ Pause/Resume     ▲
//	             │                  ▼ │                  │
//	             │                paused ────Kill────────┤
//	             └──────────────Kill─────────────────────┘
//
// The state of a container (pid, times, exit) is owned by berth-runtime and
// kept under the state directory, on tmpfs; berthd asks for it.
package runtime

import (
	"context"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// State is where a container is in its life.
type State string

// The states.
const (
	Created State = "created"
	Running State = "running"
	Paused  State = "paused"
	Stopped State = "stopped"
)

// Runtime is all of berth-runtime as its clients see it. Every method may be
// called concurrently; calls that name one container are put in order by the
// server.
type Runtime interface {
	Pods
	Containers
	Processes
	Streams
	Checkpoints
	Observer
}

// Pods pins the namespaces that a pod's containers share.
type Pods interface {
	// CreatePod makes the namespaces that r asks for and pins each at its
	// path. It is idempotent for an equal request: what a killed call left is
	// taken over. A failed call leaves nothing.
	CreatePod(ctx context.Context, r PodRequest) error
	// DeletePod undoes CreatePod: ends the pod's PID 1, unpins, removes the
	// pod's cgroup. Deleting an unknown pod succeeds.
	DeletePod(ctx context.Context, id string) error
}

// Containers takes containers through their life.
type Containers interface {
	// Create makes a container that waits for Start. errs.Exists where the id
	// is taken; a failed call leaves nothing.
	Create(ctx context.Context, r CreateRequest) (Container, error)
	// Start lets the container's process run. errs.Conflict unless created.
	Start(ctx context.Context, id string) (Container, error)
	// Kill sends a signal. A container that has stopped is not an error.
	Kill(ctx context.Context, r KillRequest) error
	// Delete kills what still runs, and forgets the container, its cgroup and
	// its exit record. errs.NotFound where it is unknown.
	Delete(ctx context.Context, id string) error
	// Update changes resources of a created or running container.
	Update(ctx context.Context, r UpdateRequest) error
}

// Processes acts on the processes of running containers.
type Processes interface {
	// Exec runs one more process in the container to its end and returns its
	// output. When the timeout or ctx ends first, the process and all that it
	// started are killed, and nothing else. errs.NoProgram and errs.NoExecutable
	// where the program is why it has not run; so too ExecStream, and Create.
	Exec(ctx context.Context, r ExecRequest) (ExecResult, error)
	// ExecStream runs one more process in the container with the caller's files
	// as its stdio, calls started once it runs, and returns its exit code. The
	// files stay the caller's, who closes its copies in started or after the call,
	// so that the other ends see the process's. The end of ctx ends the call and
	// kills nothing: the caller hangs up by closing the other ends. A process that
	// berth-runtime loses sight of, because it is restarted, is killed.
	ExecStream(ctx context.Context, r ExecRequest, io ExecIO, started func()) (exit int32, err error)
	// Pause freezes all processes of the container.
	Pause(ctx context.Context, id string) error
	// Resume undoes Pause.
	Resume(ctx context.Context, id string) error
}

// Checkpoints writes running containers down and makes them again.
type Checkpoints interface {
	// CanCheckpoint succeeds where this node can do so, and else says why not, with
	// errs.Unsupported.
	CanCheckpoint(ctx context.Context) error
	// Checkpoint dumps the processes of a paused container into a directory, which
	// exists, and leaves them paused. A dump that has begun is ended, whatever ctx
	// does, and then is an error.
	Checkpoint(ctx context.Context, r CheckpointRequest) error
	// Restore makes a container whose processes go on from a dump, and that is
	// running. Its errors are Create's.
	Restore(ctx context.Context, r RestoreRequest) (Container, error)
}

// Streams reaches the stdio of a container.
type Streams interface {
	// Attach copies between the container's stdio and the given files until
	// the container ends, stdin ends with StdinOnce, or ctx is done. The files
	// stay the caller's. A client that does not read loses output (bounded
	// queue) and never holds up the container.
	Attach(ctx context.Context, r AttachRequest, io AttachIO) error
	// Resize sets the size of the container's terminal.
	Resize(ctx context.Context, id string, width, height uint16) error
	// ReopenLog switches to a new file at the container's log path. Where it
	// fails, no file has been made and the old one is written on; of kind
	// errs.Timeout, where the disk does not answer, the file may be there, empty.
	ReopenLog(ctx context.Context, id string) error
}

// Observer tells what is there and what happens.
type Observer interface {
	// List returns every container, those that ended while nobody looked too.
	List(ctx context.Context) ([]Container, error)
	// Events calls f for each event from now on, in order, until ctx ends or
	// the connection breaks, and returns why. The first event is Subscribed:
	// a List after it misses nothing.
	Events(ctx context.Context, f func(Event)) error
	// Version tells who answers.
	Version(ctx context.Context) (Version, error)
}

// Version describes a running berth-runtime.
type Version struct {
	Version   string `json:"version"`
	AnchorPID int    `json:"anchorPid"`
	WorkerPID int    `json:"workerPid"`
	// CgroupDriver is "cgroupfs" or "systemd", as the server was started.
	CgroupDriver string `json:"cgroupDriver"`
	// Limits names what this process may not do for containers (such as
	// lowering oom_score_adj), for berth doctor.
	Limits []string `json:"limits,omitempty"`
}

// PodRequest asks for the namespaces of one pod.
type PodRequest struct {
	ID string `json:"id"`
	// Namespaces to make, each pinned by a bind mount at Path, whose parent
	// directory exists. Types: network, ipc, uts, user, pid, cgroup. With a
	// user namespace the others are made inside it, so that it owns them.
	Namespaces []PodNamespace `json:"namespaces,omitempty"`
	// Hostname is set in a new UTS namespace.
	Hostname string `json:"hostname,omitempty"`
	// Sysctls are written in the new namespaces, keys with dots.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// UIDMappings and GIDMappings fill a new user namespace.
	UIDMappings []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
	// CgroupParent, where set, is a cgroup (path under the hierarchies' root,
	// or a slice name with the systemd driver) that the runtime makes for this
	// pod and removes with it. Leave it empty where kubelet owns the cgroup.
	CgroupParent string `json:"cgroupParent,omitempty"`
	// InitCgroup is the cgroup (OCI cgroupsPath form) of the PID 1 that a new
	// pid namespace gets.
	InitCgroup string `json:"initCgroup,omitempty"`
}

// PodNamespace is one namespace to make and pin.
type PodNamespace struct {
	Type specs.LinuxNamespaceType `json:"type"`
	Path string                   `json:"path"`
}

// CreateRequest asks for one container.
type CreateRequest struct {
	ID    string `json:"id"`
	PodID string `json:"podId"`
	// Spec is complete: an absolute Root.Path that is mounted, namespaces by
	// path where the pod shares them, Linux.CgroupsPath in the form of the
	// server's driver.
	Spec *specs.Spec `json:"spec"`
	// Env, where not nil, is the environment instead of Spec.Process.Env: some
	// of it is not UTF-8, which JSON strings cannot hold.
	Env [][]byte `json:"env,omitempty"`
	// LogPath is the CRI log file; empty: output is only for attached clients.
	LogPath string `json:"logPath,omitempty"`
	// Stdin keeps a stdin open for Attach; otherwise it is /dev/null.
	Stdin bool `json:"stdin,omitempty"`
	// StdinOnce closes stdin when the first attached client's stdin ends.
	StdinOnce bool `json:"stdinOnce,omitempty"`
	// Command makes the container instead of the built-in engine, where not nil.
	Command *Command `json:"command,omitempty"`
}

// Command is a program with the command line of OCI runtimes, such as crun.
type Command struct {
	// Path is absolute.
	Path string `json:"path"`
	// Root is the directory of its state, on tmpfs, absolute.
	Root string `json:"root"`
}

// CheckpointRequest asks for the dump of one container.
type CheckpointRequest struct {
	ID string `json:"id"`
	// Spec is what the container was made from.
	Spec *specs.Spec `json:"spec"`
	Dir  string      `json:"dir"`
}

// RestoreRequest asks for one container from a dump.
type RestoreRequest struct {
	CreateRequest
	// Dir has the dump. It is the runtime's to write to, and stays the caller's.
	Dir string `json:"dir"`
}

// Container is what the runtime knows of one container.
type Container struct {
	ID    string `json:"id"`
	PodID string `json:"podId"`
	State State  `json:"state"`
	// PID is the container's first process in the host's PID namespace, 0 once
	// stopped.
	PID        int       `json:"pid,omitempty"`
	CreatedAt  time.Time `json:"createdAt"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	// ExitCode is the exit status, or 128 plus the signal's number; -1 where
	// it could not be learnt. It means something once stopped.
	ExitCode int32 `json:"exitCode"`
	// OOMKilled tells that the kernel's OOM killer ended a process of it.
	OOMKilled bool `json:"oomKilled,omitempty"`
}

// KillRequest asks for a signal.
type KillRequest struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"`
	// All sends it to every process of the container, not the first alone.
	All bool `json:"all,omitempty"`
}

// UpdateRequest asks for new resource limits; nil fields stay as they are.
type UpdateRequest struct {
	ID          string                `json:"id"`
	Resources   *specs.LinuxResources `json:"resources,omitempty"`
	OOMScoreAdj *int                  `json:"oomScoreAdj,omitempty"`
}

// ExecRequest asks for one more process in a container.
type ExecRequest struct {
	ID string `json:"id"`
	// Process is complete: args, environment, cwd, user, capabilities,
	// no_new_privs, AppArmor and SELinux labels. Seccomp is the container's.
	Process *specs.Process `json:"process"`
	// Env, where not nil, is the environment instead of Process.Env, as in
	// CreateRequest.
	Env [][]byte `json:"env,omitempty"`
	// Timeout 0 means none beside ctx. Neither it nor MaxOutput is for ExecStream.
	Timeout time.Duration `json:"timeout,omitempty"`
	// MaxOutput bounds stdout and stderr each, in bytes; the rest is read and
	// dropped. 0 means 16 MiB.
	MaxOutput int64 `json:"maxOutput,omitempty"`
}

// ExecResult is how an exec ended.
type ExecResult struct {
	ExitCode int32  `json:"exitCode"`
	Stdout   []byte `json:"stdout,omitempty"`
	Stderr   []byte `json:"stderr,omitempty"`
	// TimedOut tells that the timeout killed it.
	TimedOut bool `json:"timedOut,omitempty"`
}

// ExecIO holds what ExecStream gives to the process, as it is: a pipe's end should
// not be in non-blocking mode. nil is /dev/null. With
// Process.Terminal set there is Console alone: a socket, over whose other end the
// caller gets the master of the terminal (SCM_RIGHTS), which is then its own to
// read, write, resize and hang up.
type ExecIO struct {
	Stdin, Stdout, Stderr *os.File
	Console               *os.File
	// Width and Height are the first size of the terminal.
	Width, Height uint16
}

// AttachRequest names the streams to attach.
type AttachRequest struct {
	ID string `json:"id"`
}

// AttachIO holds the client's ends; nil leaves a stream out. With a terminal,
// Stderr is not used.
type AttachIO struct {
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// EventType says what happened.
type EventType string

// The event types.
const (
	// Subscribed is the first event of every subscription.
	Subscribed EventType = "subscribed"
	// Exited: the container's first process has ended, its record is on disk.
	Exited EventType = "exited"
	// OOM: the kernel killed a process of the container for memory.
	OOM EventType = "oom"
)

// Event is one thing that happened to a container.
type Event struct {
	Type      EventType `json:"type"`
	Container Container `json:"container,omitzero"`
}

package runtime

import (
	"context"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Engine makes processes from OCI specs, without stdio logic, logs, exit
// records or clients: those are the supervisor's. libct is the real one.
//
// Its life: Create returns a process that waits; Start lets it go; the
// supervisor sees its end by the pidfd and calls Destroy. After a restart of
// the worker every method works on containers that an earlier worker made,
// from what Create left in the engine's directory.
type Engine interface {
	Create(ctx context.Context, id string, spec *specs.Spec, io ProcessIO) (Process, error)
	// Start lets the created process execute its program. The process waits at
	// a FIFO, which open opens: see OpenGate.
	Start(ctx context.Context, id string, open OpenGate) error
	// Exec starts one more process in the container; see ExecProcess.
	Exec(ctx context.Context, id, execID string, p *specs.Process, io ProcessIO) (ExecProcess, error)
	// EndExec kills and forgets an exec that an earlier worker began, and all
	// that it started. One that is not there is no error.
	EndExec(ctx context.Context, id, execID string) error
	// Destroy kills what still runs and removes cgroup and state. It is
	// idempotent. It waits for the end of what it killed, and the caller has to
	// reap meanwhile: the first process of a PID namespace ends after its execs.
	Destroy(ctx context.Context, id string) error
	EngineControl
	EnginePods
	EngineCheckpoints
}

// CommandEngine is an Engine that can also let an OCI runtime's command make a
// container. All other methods find out by the id who made one.
type CommandEngine interface {
	Engine
	// CreateBy is Create by a command. The OpenGate of a later Start is not called.
	CreateBy(ctx context.Context, by Command, id string, spec *specs.Spec, io ProcessIO) (Process, error)
}

// OpenGate opens the FIFO at path for reading, without waiting. That lets the
// process go, which ends should nobody have the FIFO open when it passes: another
// process must have a copy of the descriptor, which the engine closes, before
// OpenGate returns. Until then the engine holds the process in the kernel, where
// the host has a freezer.
type OpenGate func(path string) (fd int, err error)

// EngineControl changes what runs.
type EngineControl interface {
	// Signal sends sig to the first process, or to all.
	Signal(ctx context.Context, id string, sig int, all bool) error
	Update(ctx context.Context, r UpdateRequest) error
	// Freeze pauses or resumes all processes.
	Freeze(ctx context.Context, id string, frozen bool) error
	// OOMKills returns how many of the container's processes the kernel has
	// killed for memory since its cgroup was made. Those of one that has gone by
	// itself, as systemd's do, are known if it was called, or Create, before that.
	OOMKills(id string) (int, error)
}

// EnginePods makes a pod's shared namespaces.
type EnginePods interface {
	// CreatePod is Pods.CreatePod; the returned pid is that of the pod's
	// PID 1, or 0 where it needs none. DeletePod ends and reaps it; nobody else
	// may, except who inherits it from a dead parent. It ends after the last
	// container in its namespace has been reaped. DeletePod with initPID 0 is
	// for a pod whose CreatePod was killed: it takes down whatever there is.
	CreatePod(ctx context.Context, r PodRequest) (initPID int, err error)
	DeletePod(ctx context.Context, r PodRequest, initPID int) error
}

// EngineCheckpoints writes containers down and makes them again.
type EngineCheckpoints interface {
	// CanCheckpoint is Checkpoints.CanCheckpoint.
	CanCheckpoint(ctx context.Context) error
	// Checkpoint is Checkpoints.Checkpoint; fifos are the paths of the container's
	// streams by name.
	Checkpoint(ctx context.Context, r CheckpointRequest, fifos map[string]string) error
	// Restore is Create and Start of a container whose processes come from a dump
	// below dir, which it writes to. Where it returns an error and a Process, that
	// one runs.
	Restore(ctx context.Context, id string, spec *specs.Spec, io ProcessIO, dir string) (Process, error)
}

// ProcessIO is what a new process gets as stdin, stdout and stderr; nil means
// /dev/null. The files stay the caller's, who closes them once the call has
// returned. With Console set the process gets a new terminal instead, whose
// master is sent over that socket (SCM_RIGHTS), as OCI runtimes do.
type ProcessIO struct {
	Stdin, Stdout, Stderr *os.File
	Console               *os.File
	// Width and Height are the first size of the terminal.
	Width, Height uint16
}

// Process is a started process: a child of the caller, if Settle is nil. PIDFD is
// the caller's to close, and is open before anybody may have reaped the process.
type Process struct {
	PID   int
	PIDFD *os.File
	// Settle lets go of a process that a command made and that is nobody's to reap
	// before: it becomes a child of the nearest subreaper, who should have been told
	// of it. It may be called more than once.
	Settle func()
}

// ExecProcess is a process started by Engine.Exec. Its end is seen by the
// pidfd; the caller reaps it by waitid(P_PIDFD) and then calls Release.
type ExecProcess struct {
	Process
	// Kill ends the process and everything that it started, and nothing else.
	Kill func() error
	// Release frees what the exec held (its sub-cgroup). Call it once.
	Release func() error
}

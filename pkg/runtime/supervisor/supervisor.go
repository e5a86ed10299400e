// Package supervisor is berth-runtime: the process table, the lives of
// containers, their exits, and the pair of processes that keeps all that alive.
//
//	anchor   parent of the worker, child subreaper; keeps copies of the
//	  │      descriptors that must not die; reaps the children of a dead worker
//	  │      into a journal; restarts the worker
//	worker   everything else: serves the socket, creates, watches, logs
//
// Either may be killed at any time, and no container notices:
//
//   - The worker dies: the anchor reaps its children and starts another, which
//     takes the descriptors back (store.go) and reads the records (recover.go).
//   - The anchor dies: the worker, still the parent of its containers, finishes
//     the calls that run, executes itself as the anchor with all descriptors
//     (handover.go), and starts a new worker.
//   - Another is started meanwhile, as systemd does when the anchor that it knew
//     has died: it stands by, passes on the signals that it gets, and serves
//     when the first is gone.
//   - Both die: FIFOs keep what containers write, records tell what ran. The
//     next berth-runtime continues; an exit in between is known only where the
//     kernel still tells.
//   - SIGUSR2 to the anchor upgrades: the worker finishes its calls and ends,
//     the anchor executes the program anew, in place.
//   - SIGTERM to the anchor stops serving and leaves containers running, as the
//     shims of other runtimes do. Input that closes with StdinOnce ends then,
//     and terminals hang up; pipes go on.
//
// Locks: per id (keylock), then container.mu, then worker.mu. The first is held
// across slow work and honours the context. Goroutines of a worker: one per
// call, the exit watcher, the log pump, the reader of the anchor's link, one for
// each exec or end that the last worker left; of an anchor: the main one and the
// reader of the worker's link.
//
// On disk, under <state>/runtime (tmpfs): containers/ID/{container.json,stdin,
// stdout,stderr}, pods/ID.json, exits/ID (the journal), engine/, pump.slot,
// pump.stage, lock.
package supervisor

import (
	"os"
	"path/filepath"

	"github.com/berth-run/berth/pkg/runtime"
)

// Options says where and how berth-runtime works. All fields are required.
type Options struct {
	// State is the state directory, on tmpfs, e.g. /run/berth.
	State string
	// Listen is the path of the socket.
	Listen string
	// CgroupDriver is told to clients.
	CgroupDriver string
	// Version is told to clients.
	Version string
	// Program is the file to execute on an upgrade.
	Program string
	// NewEngine opens the engine on a directory; the worker calls it.
	NewEngine func(dir string) (runtime.Engine, error)
}

func (o *Options) dir() string          { return filepath.Join(o.State, "runtime") }
func (o *Options) containers() string   { return filepath.Join(o.dir(), "containers") }
func (o *Options) pods() string         { return filepath.Join(o.dir(), "pods") }
func (o *Options) pod(id string) string { return filepath.Join(o.pods(), id+".json") }
func (o *Options) engineDir() string    { return filepath.Join(o.dir(), "engine") }
func (o *Options) lockPath() string     { return filepath.Join(o.dir(), "lock") }
func (o *Options) journals() string     { return filepath.Join(o.dir(), "exits") }

// The environment tells a process its role and what it inherits.
const (
	roleVariable     = "_BERTH_RUNTIME_ROLE"
	handoverVariable = "_BERTH_RUNTIME_HANDOVER"
	roleWorker       = "worker"
)

// Main runs berth-runtime in the role that the process has been started for,
// and returns its exit status.
func Main(o Options) int {
	if os.Getenv(roleVariable) == roleWorker {
		return runWorker(&o)
	}
	return runAnchor(&o)
}

// makeDirs makes what lies under the state directory.
func (o *Options) makeDirs() error {
	for _, dir := range []string{o.containers(), o.pods(), o.journals(), o.engineDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

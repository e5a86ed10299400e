package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/event"
	"github.com/berth-run/berth/pkg/internal/keylock"
	"github.com/berth-run/berth/pkg/internal/pidfd"
	"github.com/berth-run/berth/pkg/internal/trim"
	"github.com/berth-run/berth/pkg/rpc"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/runtime/stdio"
)

// Bounds of a worker's end: how long running calls may finish, and how long
// they may take to notice that they are cancelled.
const (
	drainLimit  = 5 * time.Second
	cancelLimit = 5 * time.Second
)

// worker serves calls.
type worker struct {
	o      *Options
	engine runtime.Engine
	pump   *stdio.Pump
	pods   *pods
	keeper *keeper
	exits  *pidfd.Watcher
	locks  keylock.Locks
	events event.Topic[runtime.Event]
	limits []string
	// trimmer gives memory back after a burst of calls.
	trimmer trim.Trimmer

	ending sync.WaitGroup // goroutines that end what the last worker left
	cancel context.CancelFunc

	mu         sync.Mutex
	containers map[string]*container
	lost       map[string]bool // entries of execs that are being ended
}

// The descriptors that a worker starts with.
const (
	fdLink   = 3 + iota // socket to the anchor
	fdListen            // listening socket
	fdLock              // lock of the state directory
)

// handleIgnored makes nothing of these signals, and of those that were ignored
// when the program started, as nohup does. They get a handler rather than
// SIG_IGN, which every container would inherit, whose shell could not trap them.
func handleIgnored(signals ...os.Signal) {
	for n := syscall.Signal(1); n < 32; n++ {
		if signal.Ignored(n) {
			signals = append(signals, n)
		}
	}
	signal.Notify(make(chan os.Signal, 1), signals...)
}

// runWorker is the worker's main.
func runWorker(o *Options) int {
	// A worker's live heap is a few hundred kB: collect late, but bound it.
	debug.SetGCPercent(200)
	debug.SetMemoryLimit(64 << 20)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	handleIgnored(syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2) // the anchor's
	for _, fd := range []int{fdLink, fdListen, fdLock} {
		syscall.CloseOnExec(fd)
	}
	w, listener, err := openWorker(o)
	if err != nil {
		slog.Error("worker cannot begin", "err", err)
		return 1
	}
	server := rpc.NewServer(w.handle)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	slog.Info("worker serves", "containers", len(w.containers), "pid", os.Getpid())
	select {
	case <-term:
		w.shutdown(server)
		<-served //nolint:errcheck // it ended because shutdown closed it
		w.close()
		return 0
	case err := <-served:
		slog.Error("worker cannot listen any more", "err", err)
		return 1 // the anchor starts another
	case <-w.keeper.lost:
		slog.Error("anchor is gone, taking its place")
		w.shutdown(server)
		err := w.promote()
		slog.Error("worker cannot become the anchor", "err", err)
		return 1
	}
}

func newWorker(o *Options) *worker {
	return &worker{o: o, containers: map[string]*container{}, lost: map[string]bool{}}
}

func openWorker(o *Options) (*worker, *net.UnixListener, error) {
	w := newWorker(o)
	kept, err := w.connect()
	if err != nil {
		return nil, nil, err
	}
	if err := w.open(kept); err != nil {
		return nil, nil, err
	}
	l, err := inheritedListener()
	if err != nil {
		return nil, nil, err
	}
	return w, l, nil
}

// inheritedListener returns a listener that has a copy of the descriptor, which
// promote has to find where it is, whatever becomes of the listener.
func inheritedListener() (*net.UnixListener, error) {
	fd, err := unix.FcntlInt(fdListen, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy listening socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "listen")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

func (w *worker) connect() (store, error) {
	k, kept, err := openKeeper(fdLink)
	w.keeper = k
	return kept, err
}

// open opens everything on what kept and the records tell.
func (w *worker) open(kept store) (err error) {
	if err := w.o.makeDirs(); err != nil {
		return err
	}
	if w.exits, err = pidfd.OpenWatcher(); err != nil {
		return err
	}
	stage := -1
	if e := kept[pumpEntry]; e != nil {
		stage = e.FDs[nameStage]
		delete(kept, pumpEntry)
	}
	if w.pump, err = stdio.OpenPump(w.o.dir(), stage); err != nil {
		return err
	}
	w.keeper.put(&entry{ID: pumpEntry, FDs: map[string]int{nameStage: w.pump.Stage()}})
	if w.engine, err = w.o.NewEngine(w.o.engineDir()); err != nil {
		return fmt.Errorf("open engine: %w", err)
	}
	w.pods = &pods{w.o, w.engine, &w.locks}
	w.limits = limits(w.engine)
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	restored := w.recover(ctx, kept)
	w.pump.Run()
	for _, u := range restored {
		w.resume(u)
	}
	return nil
}

// shutdown lets calls end, and reports those that do not.
func (w *worker) shutdown(server *rpc.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if !server.Shutdown(ctx, cancelLimit) {
		slog.Error("calls did not end in time")
	}
}

// close ends the worker's goroutines. Containers run on.
func (w *worker) close() {
	w.cancel()
	w.ending.Wait()
	w.exits.Close()
	w.pump.Close()
}

// find returns the container of that id, or errs.NotFound.
func (w *worker) find(id string) (*container, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, errs.NotFound)
	}
	return c, nil
}

// locked runs f for the container of that id while no other call changes it.
func (w *worker) locked(ctx context.Context, id string, f func(*container) error) error {
	unlock, err := w.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := w.find(id)
	if err != nil {
		return err
	}
	return f(c)
}

// live is locked for containers that have not stopped.
func (w *worker) live(ctx context.Context, id string, f func(*container) error) error {
	return w.locked(ctx, id, func(c *container) error {
		if c.get().State == runtime.Stopped || c.stdio == nil {
			return fmt.Errorf("container %s is stopped: %w", id, errs.Conflict)
		}
		return f(c)
	})
}

// limited is what an engine that knows its limits implements.
type limited interface{ Limits() []string }

func limits(e runtime.Engine) []string {
	var all []string
	if adj, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		if n := string(adj); n != anchorOOMScore+"\n" {
			all = append(all, fmt.Sprintf("oom_score_adj of berth-runtime is %.*s instead of %s: no CAP_SYS_RESOURCE", len(n)-1, n, anchorOOMScore))
		}
	}
	var l limited
	if known, ok := e.(limited); ok {
		l = known
		all = append(all, l.Limits()...)
	}
	return all
}

// errGone says that the caller went away while its call was served.
var errGone = errors.New("caller is gone")

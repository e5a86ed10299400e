package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidlock"
	"github.com/berth-run/berth/pkg/internal/trim"
	"github.com/berth-run/berth/pkg/rpc"
)

// anchorOOMScore makes the kernel kill nearly everything else first.
const anchorOOMScore = "-999"

// Bounds of the anchor's waits.
const (
	stopLimit    = 15 * time.Second // of a worker that has been asked to end
	healthyAfter = 10 * time.Second // a worker that lived as long is restarted at once
	maxBackoff   = 5 * time.Second
)

// anchor is the state of the anchor, of its main goroutine alone.
type anchor struct {
	o      *Options
	store  store
	listen int
	lock   int
	// strangers are the last that ended and were nobody's; see apply.
	strangers []obituary

	worker   int // pid, 0 where there is none
	link     int // our end of the link, until it has been read to its end
	messages chan *message
	began    time.Time
	backoff  time.Duration
	restart  <-chan time.Time

	goal     goal
	deadline <-chan time.Time // of the worker's end
}

// goal is what to do once the worker has ended.
type goal int

const (
	goalServe goal = iota
	goalStop
	goalUpgrade
)

// runAnchor is the anchor's main.
func runAnchor(o *Options) int {
	// The live heap is tiny: collect rarely, hold little.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(8 << 20)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGHUP)
	a := &anchor{o: o, store: store{}, listen: -1, lock: -1, link: -1}
	serve, err := a.open(signals)
	switch {
	case err != nil:
		slog.Error("berth-runtime cannot begin", "err", err)
		return 1
	case !serve:
		return 0
	}
	return a.run(signals)
}

// open reports whether there is something to serve: a process that stands by
// may be told to end.
func (a *anchor) open(signals <-chan os.Signal) (serve bool, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("become child subreaper: %w", err)
	}
	// Without CAP_SYS_RESOURCE this fails; Version().Limits tells it.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(anchorOOMScore), 0)
	h, err := takeHandover()
	if err != nil {
		slog.Error("what was handed over cannot be read, starting afresh", "err", err)
	}
	if h != nil {
		a.listen, a.lock = h.Listen, h.Lock
		for _, e := range h.Entries {
			a.store[e.ID] = e
		}
		return true, pidlock.Sign(a.lock)
	}
	return a.openAfresh(signals)
}

func (a *anchor) openAfresh(signals <-chan os.Signal) (serve bool, err error) {
	if err := os.MkdirAll(a.o.State, 0o711); err != nil {
		return false, err
	}
	if err := a.o.makeDirs(); err != nil {
		return false, err
	}
	if a.lock, err = pidlock.Open(a.o.lockPath()); err != nil {
		return false, err
	}
	// Another may serve, whose anchor was a worker before: a supervisor of services
	// that knows only the dead anchor starts this process then, and speaks to it.
	if serve, err := pidlock.Take(a.lock, signals, 2*stopLimit); !serve || err != nil {
		return false, err
	}
	if err := pidlock.Sign(a.lock); err != nil {
		return false, err
	}
	return true, a.listenAfresh()
}

func (a *anchor) listenAfresh() error {
	l, err := rpc.Listen(a.o.Listen)
	if err != nil {
		return err
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return err
	}
	a.listen, err = dupFD(f)
	return errors.Join(err, f.Close())
}

// run is the main loop.
func (a *anchor) run(signals <-chan os.Signal) int {
	a.spawn()
	a.reap() // children that ended before we listened
	var trimmer trim.Trimmer
	for {
		// Before the first wait too: the first worker may not have started.
		if a.worker == 0 && a.link < 0 && a.restart == nil {
			if a.workerEnded() {
				return 0
			}
		}
		select {
		case s := <-signals:
			a.signal(s)
		case m, open := <-a.messages:
			if !open {
				a.unlink()
				break
			}
			a.apply(m)
			trimmer.Touch()
		case <-a.restart:
			a.restart = nil
			a.spawn()
		case <-a.deadline:
			slog.Error("worker does not end, killing it", "pid", a.worker)
			_ = unix.Kill(a.worker, unix.SIGKILL) // it may have ended
			a.deadline = time.After(stopLimit)
		}
	}
}

func (a *anchor) signal(s os.Signal) {
	switch s {
	case syscall.SIGCHLD:
		a.reap()
	case syscall.SIGUSR2:
		a.endWorker(goalUpgrade)
	default:
		a.endWorker(goalStop)
	}
}

// endWorker asks the worker to finish its calls and end.
func (a *anchor) endWorker(g goal) {
	a.goal = max(a.goal, g)
	if g == goalStop {
		a.goal = goalStop
	}
	if a.worker == 0 {
		a.restart = nil
		return
	}
	_ = unix.Kill(a.worker, unix.SIGTERM) // it may have ended
	a.deadline = time.After(stopLimit)
}

// workerEnded does what is next once the worker has ended and all that it sent
// has been read. It reports whether the anchor should end.
func (a *anchor) workerEnded() (stop bool) {
	a.deadline = nil
	switch a.goal {
	case goalStop:
		_ = os.Remove(a.o.Listen) // nobody answers there now
		return true
	case goalUpgrade:
		a.goal = goalServe
		slog.Info("executing the program anew", "program", a.o.Program)
		slog.Error("upgrade", "err", a.handover().exec(a.o.Program))
		a.backoff = 0
	}
	if time.Since(a.began) > healthyAfter {
		a.backoff = 0
	}
	a.restart = time.After(a.backoff)
	a.backoff = min(max(2*a.backoff, 50*time.Millisecond), maxBackoff)
	return false
}

func (a *anchor) handover() *handover {
	h := &handover{Listen: a.listen, Lock: a.lock}
	for _, e := range a.store {
		h.Entries = append(h.Entries, e)
	}
	return h
}

package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/statefile"
)

// unknownExit is the exit code that nobody could learn.
const unknownExit = -1

// exitWatcher calls back when processes end, seen by their pidfds.
type exitWatcher struct {
	epoll, wake int
	calls       sync.WaitGroup
	done        chan struct{}

	mu      sync.Mutex
	next    int32
	waiting map[int32]watched
}

type watched struct {
	fd int
	f  func()
}

func newExitWatcher() (*exitWatcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		return nil, err
	}
	w := &exitWatcher{epoll: epoll, wake: wake, done: make(chan struct{}), waiting: map[int32]watched{}}
	go w.loop()
	return w, nil
}

// watch calls f once, on a goroutine of its own, when the process behind pidfd
// has ended. The caller keeps pidfd open until then.
func (w *exitWatcher) watch(pidfd int, f func()) error {
	w.mu.Lock()
	w.next++
	token := w.next
	w.waiting[token] = watched{pidfd, f}
	w.mu.Unlock()
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, pidfd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: token})
	if err != nil {
		w.take(token)
		return fmt.Errorf("watch process: %w", err)
	}
	return nil
}

func (w *exitWatcher) take(token int32) watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.waiting[token]
	delete(w.waiting, token)
	return e
}

func (w *exitWatcher) loop() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 32)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("supervisor: epoll: %v", err)) // a broken invariant: the fd is ours
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == 0 {
				return
			}
			if ended := w.take(e.Fd); ended.f != nil {
				_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, ended.fd, nil) // it was added
				w.calls.Go(ended.f)
			}
		}
	}
}

// close stops watching and waits for the calls that were made.
func (w *exitWatcher) close() {
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd takes one
	<-w.done
	w.calls.Wait()
	_ = unix.Close(w.epoll) // nothing to flush
	_ = unix.Close(w.wake)  // nothing to flush
}

// siginfo is the part of siginfo_t that waitid fills.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
}

const cldExited = 1 // CLD_EXITED; the others tell of signals

// look returns the exit code of a child that has ended, and leaves it there for
// reap. unix.ECHILD says that it is no child of this process.
func look(pidfd int) (int32, error) {
	var raw unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, &raw, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return unknownExit, err
		}
		break
	}
	if childOf(&raw) == 0 {
		return unknownExit, unix.EAGAIN
	}
	return exitOf(&raw), nil
}

// reap lets go of a child that has ended; another's child is not ours to reap.
func reap(pidfd int) {
	for errors.Is(unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG, nil), unix.EINTR) {
		continue
	}
}

// childOf returns whose end waitid told of, or 0.
func childOf(raw *unix.Siginfo) int { return int((*siginfo)(unsafe.Pointer(raw)).pid) }

// exitOf returns the exit code that waitid told.
func exitOf(raw *unix.Siginfo) int32 {
	info := (*siginfo)(unsafe.Pointer(raw))
	if info.code == cldExited {
		return info.status
	}
	return 128 + info.status
}

// code turns a wait status into an exit code.
func code(status unix.WaitStatus) int32 {
	if status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(status.ExitStatus())
}

// recall asks the kernel for the exit code of a process that somebody else has
// reaped (Linux 6.15).
func recall(pidfd int) (exit int32, ok bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return unknownExit, false
	}
	return code(unix.WaitStatus(info.Exit_code)), true
}

// reapLimit bounds how long the exit code of another's child is waited for.
const reapLimit = 5 * time.Second

// exitCode learns how the process behind pidfd has ended: as its parent, else
// from the kernel, else from the anchor's journal. It reaps nothing: until the
// exit is on disk the dead process is its only record, which the anchor takes
// over should this worker die.
func exitCode(pidfd int, journal string, pid int, since uint64) int32 {
	for wait := 100 * time.Microsecond; wait < reapLimit; wait *= 2 {
		exit, err := look(pidfd)
		if err == nil {
			return exit
		}
		if exit, ok := recall(pidfd); ok {
			return exit
		}
		if exit, ok := journalled(journal, pid, since); ok {
			return exit
		}
		time.Sleep(wait)
	}
	return unknownExit
}

// obituary is an entry of the exit journal.
type obituary struct {
	PID   int    `json:"pid"`
	Begun uint64 `json:"begun"`
	Exit  int32  `json:"exit"`
}

func journalled(path string, pid int, since uint64) (exit int32, ok bool) {
	var o obituary
	if err := statefile.Read(path, &o); err != nil || o.PID != pid || o.Begun != since {
		return unknownExit, false
	}
	return o.Exit, true
}

// forget removes a container's entry of the journal.
func forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (o *Options) journal(id string) string { return filepath.Join(o.dir(), "exits", id) }

package pidfd

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher calls back when processes end.
type Watcher struct {
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

// OpenWatcher begins to watch.
func OpenWatcher() (*Watcher, error) {
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
	w := &Watcher{epoll: epoll, wake: wake, done: make(chan struct{}), waiting: map[int32]watched{}}
	go w.loop()
	return w, nil
}

// Watch calls f once, on a goroutine of its own, when the process behind fd has
// ended. The caller keeps fd open until then.
func (w *Watcher) Watch(fd int, f func()) {
	w.mu.Lock()
	w.next++
	token := w.next
	w.waiting[token] = watched{fd, f}
	w.mu.Unlock()
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: token})
	if err != nil {
		w.take(token)
		w.calls.Go(func() { w.await(fd, f) })
	}
}

// await does the same where the kernel has no room to watch one more: it takes a
// thread.
func (w *Watcher) await(fd int, f func()) {
	for {
		either := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(w.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(either, -1); errors.Is(err, unix.EINTR) {
			continue
		}
		if either[1].Revents == 0 {
			f()
		}
		return
	}
}

func (w *Watcher) take(token int32) watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.waiting[token]
	delete(w.waiting, token)
	return e
}

func (w *Watcher) loop() {
	defer close(w.done)
	events := make([]unix.EpollEvent, 32)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("pidfd: epoll: %v", err)) // a broken invariant: the fd is ours
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

// Close stops watching and waits for the calls that were made.
func (w *Watcher) Close() {
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd takes one
	<-w.done
	w.calls.Wait()
	_ = unix.Close(w.epoll) // nothing to flush
	_ = unix.Close(w.wake)  // nothing to flush
}

package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// outSize is room for the records of one batch.
const outSize = 3 << 20

// Pump moves the output of any number of containers.
type Pump struct {
	epoll   int
	scratch [2]int // pipe for looking
	stage   int    // FIFO for taking; see slot
	null    int
	slot    *slot
	in, out []byte
	calls   calls // to run on the pump's goroutine
	running bool
	done    chan struct{}

	// The rest belongs to the goroutine.
	streams map[int32]*stream
	tokens  int32
	ready   []*stream
	hot     bool
}

// OpenPump makes a pump that keeps its slot in dir. Stage, where not -1, is the
// fd that an earlier pump's Stage returned, which is taken over. Call Run once
// all containers are restored.
func OpenPump(dir string, stage int) (*Pump, error) {
	p := &Pump{epoll: -1, calls: calls{wake: -1, patient: pumpLimit}, scratch: [2]int{-1, -1}, stage: stage, null: -1, done: make(chan struct{}), streams: map[int32]*stream{}}
	if err := p.open(dir); err != nil {
		p.closeFDs()
		return nil, fmt.Errorf("open log pump: %w", err)
	}
	return p, nil
}

func (p *Pump) open(dir string) (err error) {
	if p.slot, err = openSlot(filepath.Join(dir, "pump.slot")); err != nil {
		return err
	}
	if p.stage < 0 {
		path := filepath.Join(dir, "pump.stage")
		if err := makeFIFO(path); err != nil {
			return err
		}
		if p.stage, err = openFIFO(path, unix.O_RDWR|unix.O_NONBLOCK); err != nil {
			return err
		}
		grow(p.stage)
	}
	if err := unix.Pipe2(p.scratch[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	grow(p.scratch[1])
	if p.null, err = unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if p.calls.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.calls.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: 0}); err != nil {
		return err
	}
	return p.mapBuffers()
}

// mapBuffers takes the buffers outside the Go heap, so that their pages can be
// given back after a burst.
func (p *Pump) mapBuffers() error {
	mem, err := unix.Mmap(-1, 0, bigPipe+outSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	p.in, p.out = mem[:bigPipe:bigPipe], mem[bigPipe:]
	return nil
}

// Stage returns the fd to keep for the next pump, should this process die. It
// stays the pump's.
func (p *Pump) Stage() int { return p.stage }

// Run begins to move data. Before it, Restore must have been called for every
// container that an earlier pump served.
func (p *Pump) Run() {
	p.slot.set(slotIdle) // a batch of a container that is gone
	p.emptyStage()
	p.running = true
	go p.loop()
}

// Close stops the pump after it has moved what is there, and returns once its
// goroutine has ended, or a disk holds it up for too long. Containers go on and
// fill their FIFOs.
func (p *Pump) Close() {
	p.calls.close()
	if p.running && !p.calls.within(p.done) {
		return // its descriptors are in use
	}
	p.closeFDs()
}

func (p *Pump) closeFDs() {
	for _, fd := range []int{p.epoll, p.calls.wake, p.scratch[0], p.scratch[1], p.stage, p.null} {
		if fd >= 0 {
			_ = unix.Close(fd) // pipes and polls: nothing to flush
		}
	}
	if p.slot != nil {
		_ = p.slot.close() // the page is shared: nothing to flush
	}
}

func (p *Pump) loop() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(p.epoll, events, p.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("stdio: epoll: %v", err)) // a broken invariant: the fd is ours
		}
		if n == 0 && len(p.ready) == 0 {
			p.cool()
		}
		for _, e := range events[:max(n, 0)] {
			p.event(e)
		}
		p.turn()
		if p.calls.run() {
			return
		}
	}
}

// patience is how long to wait: not at all with work left, and not for ever
// with buffers to give back.
func (p *Pump) patience() int {
	switch {
	case len(p.ready) > 0:
		return 0
	case p.hot:
		return 1000
	}
	return -1
}

func (p *Pump) cool() {
	p.hot = false
	_ = unix.Madvise(p.in, unix.MADV_DONTNEED)  // a hint
	_ = unix.Madvise(p.out, unix.MADV_DONTNEED) // a hint
}

func (p *Pump) event(e unix.EpollEvent) {
	if e.Fd == 0 {
		var b [8]byte
		_, _ = unix.Read(p.calls.wake, b[:]) // resets the counter
		return
	}
	s := p.streams[e.Fd]
	if s == nil {
		return
	}
	if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 && s.tty < 0 {
		s.hup = true
	}
	p.enqueue(s)
}

func (p *Pump) enqueue(s *stream) {
	if !s.queued && !s.ended {
		s.queued = true
		p.ready = append(p.ready, s)
	}
}

// turn gives each ready stream one batch.
func (p *Pump) turn() {
	ready := p.ready
	p.ready = nil
	for _, s := range ready {
		s.queued = false
		if p.step(s) {
			p.hot = true
			p.enqueue(s)
		}
	}
}

// add begins to watch s.
func (p *Pump) add(s *stream) error {
	p.tokens++
	fd := s.fd
	if s.tty >= 0 {
		fd = s.tty
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: p.tokens}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("watch output: %w", err)
	}
	p.streams[p.tokens] = s
	p.enqueue(s) // data may be there already
	return nil
}

// drain moves what lies in the FIFO now, and no more: a process that outlives
// the container may go on writing.
func (p *Pump) drain(s *stream) {
	if s.tty < 0 && ready(s.fd, unix.POLLHUP) {
		s.hup = true
	}
	for left := buffered(s.fd) + 1; left > 0 && !s.ended; {
		before := buffered(s.fd)
		if more := p.step(s); !more {
			return
		}
		left -= before - min(buffered(s.fd), before)
	}
}

// end stops watching s and tells its owner.
func (p *Pump) end(s *stream) {
	if s.ended {
		return
	}
	s.ended = true
	for token, other := range p.streams {
		if other == s {
			delete(p.streams, token)
		}
	}
	for _, fd := range []int{s.fd, s.tty} {
		if fd >= 0 {
			_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) // one of them is watched
		}
	}
	s.owner.streamEnded()
}

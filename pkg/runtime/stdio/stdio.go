package stdio

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// Config says what stdio a container has.
type Config struct {
	ID string
	// Dir is where its FIFOs lie.
	Dir string
	// LogPath is the CRI log; empty for none.
	LogPath string
	// Stdin keeps a stdin; StdinOnce closes it after its first client.
	Stdin, StdinOnce bool
	// Terminal gives it one terminal instead of three pipes.
	Terminal bool
}

// FIFOs returns the paths of the streams by name; none with a terminal.
func (c Config) FIFOs() map[string]string {
	paths := map[string]string{}
	if c.Terminal {
		return paths
	}
	names := []string{nameStdout, nameStderr}
	if c.Stdin {
		names = append(names, nameStdin)
	}
	for _, name := range names {
		paths[name] = filepath.Join(c.Dir, name)
	}
	return paths
}

// The names of the descriptors in FDs.
const (
	nameStdin  = "stdin"
	nameStdout = "stdout"
	nameStderr = "stderr"
	nameLog    = "log"
	nameTTY    = "tty"
)

// Child holds the container's ends. They are closed by Begin or Close.
type Child struct {
	Stdin, Stdout, Stderr *os.File
	// Console is a socket that takes the master of the terminal.
	Console *os.File
}

// Stdio is the stdio of one container.
type Stdio struct {
	p       *Pump
	cfg     Config
	log     *logFile
	streams []*stream
	tty     int // terminal master, or -1
	child   Child
	console *os.File // our end of Child.Console

	mu      sync.Mutex
	stdin   *os.File // our end; nil when closed
	clients map[*client]struct{}
	running int  // streams that have not ended
	over    bool // the container has ended
	closed  bool
}

// Prepare makes the stdio of a new container. Close undoes it.
func (p *Pump) Prepare(cfg Config) (*Stdio, error) {
	if len(cfg.ID) > maxID {
		return nil, fmt.Errorf("id of %d bytes: %w", len(cfg.ID), errs.Invalid)
	}
	s := &Stdio{p: p, cfg: cfg, tty: -1}
	err := s.open(nil)
	if err == nil {
		err = s.openChild()
	}
	if err != nil {
		s.release()
		return nil, fmt.Errorf("prepare stdio: %w", err)
	}
	return s, nil
}

// Restore is for a container that runs already, before Run and not concurrently.
// It takes over fds, what FDs gave to the keeper of descriptors; those that are
// missing are opened anew, but a lost terminal is lost.
func (p *Pump) Restore(cfg Config, fds map[string]int) (*Stdio, error) {
	s := &Stdio{p: p, cfg: cfg, tty: -1}
	if fds == nil {
		fds = map[string]int{} // none was kept; nil means a new container
	}
	if err := s.open(fds); err != nil {
		s.release()
		return nil, fmt.Errorf("restore stdio: %w", err)
	}
	if fd, ok := fds[nameTTY]; ok {
		s.tty = fd
		s.streams[0].tty = fd
	}
	for _, st := range s.streams {
		p.finish(st)
	}
	return s, s.add()
}

// open opens our ends, each from fds where it is there.
func (s *Stdio) open(fds map[string]int) error {
	if s.cfg.LogPath != "" {
		fd, err := reuse(fds, nameLog, func() (int, error) { return openLog(s.cfg.LogPath) })
		if err != nil {
			return err
		}
		s.log = &logFile{path: s.cfg.LogPath, fd: fd}
	}
	flags := unix.O_RDONLY | unix.O_NONBLOCK
	names := []string{nameStdout, nameStderr}
	if s.cfg.Terminal {
		flags, names = unix.O_RDWR|unix.O_NONBLOCK, names[:1]
	}
	for i, name := range names {
		fd, err := reuse(fds, name, func() (int, error) { return s.fifo(name, flags) })
		if err != nil {
			return err
		}
		s.streams = append(s.streams, &stream{owner: s, index: i + 1, fd: fd, tty: -1})
	}
	s.running = len(s.streams)
	if !s.cfg.Stdin || s.cfg.Terminal {
		return nil
	}
	return s.openStdin(fds)
}

func (s *Stdio) openStdin(fds map[string]int) error {
	if _, kept := fds[nameStdin]; fds != nil && s.cfg.StdinOnce && !kept {
		return nil // its one client has been, or its writers died with the keeper
	}
	// O_RDWR opens at once, without a reader; the read side goes unused.
	fd, err := reuse(fds, nameStdin, func() (int, error) { return s.fifo(nameStdin, unix.O_RDWR|unix.O_NONBLOCK) })
	if err != nil {
		return err
	}
	s.stdin = os.NewFile(uintptr(fd), nameStdin)
	return nil
}

func (s *Stdio) fifo(name string, flags int) (int, error) {
	path := filepath.Join(s.cfg.Dir, name)
	if err := makeFIFO(path); err != nil {
		return -1, err
	}
	return openFIFO(path, flags)
}

func reuse(fds map[string]int, name string, open func() (int, error)) (int, error) {
	if fd, ok := fds[name]; ok {
		return fd, nil
	}
	return open()
}

// openChild opens the container's ends.
func (s *Stdio) openChild() (err error) {
	if s.cfg.Terminal {
		return s.openConsole()
	}
	if s.child.Stdout, err = childEnd(s.cfg.Dir, nameStdout, unix.O_RDWR); err != nil {
		return err
	}
	if s.child.Stderr, err = childEnd(s.cfg.Dir, nameStderr, unix.O_RDWR); err != nil {
		return err
	}
	if s.stdin == nil {
		return nil
	}
	// With StdinOnce the end of the input must reach the container, so it may
	// not hold a write end of its own; without it there is no such end, and a
	// write end of its own lets its stdin outlive this process and its keeper.
	flags := unix.O_RDWR
	if s.cfg.StdinOnce {
		flags = unix.O_RDONLY
	}
	s.child.Stdin, err = childEnd(s.cfg.Dir, nameStdin, flags)
	return err
}

// Child returns what to give to the container's first process.
func (s *Stdio) Child() Child { return s.child }

// Begin closes the container's ends, which its process has now, and begins to
// move its output.
func (s *Stdio) Begin() error {
	if s.cfg.Terminal {
		fd, err := receiveMaster(s.console)
		if err != nil {
			return err
		}
		s.tty = fd
		s.streams[0].tty = fd
	}
	s.closeChild()
	var addErr error
	err := s.p.calls.do(func() { addErr = s.add() })
	return errors.Join(err, addErr)
}

func (s *Stdio) add() (err error) {
	for _, st := range s.streams {
		err = errors.Join(err, s.p.add(st))
	}
	return err
}

// FDs returns the descriptors that a keeper should hold, by name. They stay
// this Stdio's.
func (s *Stdio) FDs() map[string]int {
	fds := map[string]int{}
	for _, st := range s.streams {
		fds[string(streamNames[st.index])] = st.fd
	}
	if s.log != nil {
		fds[nameLog] = s.log.fd
	}
	if s.tty >= 0 {
		fds[nameTTY] = s.tty
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin != nil {
		if raw, err := s.stdin.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { fds[nameStdin] = int(fd) }) // a closed one is left out
		}
	}
	return fds
}

// Drain moves what the container has written so far into the log. Call it
// after the container's end and before telling anybody: it does not wait for
// processes that still hold the output open. Where a disk holds it up for too
// long it returns, and the rest is moved later.
func (s *Stdio) Drain() {
	drained := s.p.calls.submit(func() {
		for _, st := range s.streams {
			st.over = true
			s.p.drain(st)
		}
	})
	if drained != nil && !s.p.calls.within(drained.ran) {
		slog.Warn("container log is held up, what it lacks follows", "container", s.cfg.ID)
	}
	s.finishClients()
}

// Reopen switches to a new file at the log's path. Where it fails, the old one
// is written on. With errs.Timeout there may be an empty file.
func (s *Stdio) Reopen() error {
	if s.log == nil {
		return nil
	}
	fd, err := openLog(s.cfg.LogPath)
	if err != nil {
		return err
	}
	old := fd
	err = s.p.calls.do(func() { old = s.log.swap(fd) })
	return errors.Join(err, unix.Close(old))
}

// Resize sets the size of the terminal.
func (s *Stdio) Resize(width, height uint16) error {
	if s.tty < 0 {
		return fmt.Errorf("container has no terminal: %w", errs.Conflict)
	}
	return unix.IoctlSetWinsize(s.tty, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
}

// Close writes an unfinished last line, drops clients and closes everything.
// Where a disk holds it up for too long it returns, and all that happens later.
// It is idempotent.
func (s *Stdio) Close() {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return
	}
	s.closeChild()
	s.closeStdin()
	closed := s.p.calls.submit(func() {
		for _, st := range s.streams {
			st.hup = true
			s.p.drain(st)
			s.p.end(st)
		}
		s.closeFDs()
	})
	if closed == nil {
		s.closeFDs()
	} else {
		s.p.calls.within(closed.ran)
	}
	s.finishClients()
}

// release closes what the pump has not seen yet.
func (s *Stdio) release() {
	s.closeChild()
	s.closeStdin()
	s.closeFDs()
}

// closeFDs closes what the pump uses.
func (s *Stdio) closeFDs() {
	for _, st := range s.streams {
		_ = unix.Close(st.fd) // a read end
	}
	if s.tty >= 0 {
		_ = unix.Close(s.tty) // the terminal is gone with the container
	}
	if s.log != nil {
		_ = unix.Close(s.log.fd) // write errors came with the writes
	}
}

func (s *Stdio) closeChild() {
	for _, f := range []*os.File{s.child.Stdin, s.child.Stdout, s.child.Stderr, s.child.Console, s.console} {
		if f != nil {
			_ = f.Close() // nothing was written through it
		}
	}
	s.child, s.console = Child{}, nil
}

func (s *Stdio) closeStdin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin != nil {
		_ = s.stdin.Close() // a FIFO has nothing to flush
		s.stdin = nil
	}
}

// streamEnded runs on the pump's goroutine.
func (s *Stdio) streamEnded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running--; s.running == 0 {
		s.finishClientsLocked()
	}
}

// finishClients tells clients, those to come too, that nothing will follow.
func (s *Stdio) finishClients() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.finishClientsLocked()
}

func (s *Stdio) finishClientsLocked() {
	for c := range s.clients {
		c.finish()
	}
}

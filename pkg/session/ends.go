package session

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// pipes are those between this process and a program, or berth-runtime: one for each
// of the client's streams that there is.
type pipes struct{ stdin, stdout, stderr ends }

// open makes them; close is to be called in any case.
func (p *pipes) open(s Streams) error {
	return errors.Join(p.stdin.openIn(s.Stdin != nil), p.stdout.openOut(s.Stdout != nil), p.stderr.openOut(s.Stderr != nil))
}

func (p *pipes) close() {
	p.stdin.close()
	p.stdout.close()
	p.stderr.close()
}

// ends are those of a pipe, or none. They may be closed twice: a file's second
// Close is an error and nothing else.
type ends struct{ r, w *os.File }

// openIn makes a pipe that this process writes to, where it is wanted.
func (e *ends) openIn(wanted bool) error { return e.open(wanted, 1) }

// openOut makes a pipe that this process reads from, where it is wanted.
func (e *ends) openOut(wanted bool) error { return e.open(wanted, 0) }

// open makes our end alone non-blocking: programs do not expect that of theirs.
func (e *ends) open(wanted bool, ours int) error {
	if !wanted {
		return nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	err := unix.SetNonblock(fds[ours], true)
	e.r, e.w = os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
	return os.NewSyscallError("fcntl", err)
}

func (e *ends) closeRead()  { closeFile(e.r) }
func (e *ends) closeWrite() { closeFile(e.w) }
func (e *ends) close()      { e.closeRead(); e.closeWrite() }

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close() // write errors came with the writes
	}
}

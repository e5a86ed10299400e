package main

import (
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// terminal is the person's, where a container gets one too; nil is none.
type terminal struct {
	fd      int
	state   *term.State
	signals chan os.Signal
}

// openTerminal returns the terminal that -t needs beside -i: the container's
// would otherwise echo and edit what a pipe sends.
func (a *app) openTerminal(f *runFlags) (*terminal, error) {
	if !f.tty || f.detach {
		return nil, nil
	}
	file, ok := a.in.(*os.File)
	if ok && term.IsTerminal(int(file.Fd())) {
		return &terminal{fd: int(file.Fd())}, nil
	}
	if f.interactive {
		return nil, errors.New("stdin is no terminal: leave out -t")
	}
	return nil, nil
}

// raw hands every key to the container, ^C too.
func (t *terminal) raw() (err error) {
	if t == nil {
		return nil
	}
	t.state, err = term.MakeRaw(t.fd)
	return err
}

func (t *terminal) restore() {
	if t == nil {
		return
	}
	if t.signals != nil {
		signal.Stop(t.signals)
		close(t.signals)
	}
	if t.state != nil {
		_ = term.Restore(t.fd, t.state) // a terminal that has gone needs none
	}
}

func (t *terminal) size() *apiv1.TerminalSize {
	if t == nil {
		return nil
	}
	width, height, err := term.GetSize(t.fd)
	if err != nil {
		return nil
	}
	return &apiv1.TerminalSize{Width: uint32(width), Height: uint32(height)}
}

// sizes sends the size whenever it changes. It ends with restore.
func (t *terminal) sizes() <-chan *apiv1.TerminalSize {
	if t == nil {
		return nil
	}
	sizes := make(chan *apiv1.TerminalSize, 1)
	signals := make(chan os.Signal, 1)
	t.signals = signals
	signal.Notify(signals, unix.SIGWINCH)
	go func() {
		defer close(sizes)
		for range signals {
			if s := t.size(); s != nil {
				select {
				case sizes <- s:
				default: // the next one is newer
				}
			}
		}
	}()
	return sizes
}

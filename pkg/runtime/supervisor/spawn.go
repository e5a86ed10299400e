package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// messageQueue is how many of the worker's messages may wait; then it waits.
const messageQueue = 64

// spawn starts a worker and sends it the store. A failure counts as a worker
// that ended at once.
func (a *anchor) spawn() {
	a.began = time.Now()
	if err := a.spawnWorker(); err != nil {
		slog.Error("worker cannot be started", "err", err)
	}
}

func (a *anchor) spawnWorker() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	pid, err := syscall.ForkExec(selfProgram, os.Args, &syscall.ProcAttr{
		Env:   append(cleanEnv(), roleVariable+"="+roleWorker),
		Files: []uintptr{0, 1, 2, uintptr(pair[1]), uintptr(a.listen), uintptr(a.lock)},
	})
	_ = unix.Close(pair[1]) // the worker's
	if err != nil {
		_ = unix.Close(pair[0]) // never used
		return err
	}
	a.worker, a.link = pid, pair[0]
	a.messages = make(chan *message, messageQueue)
	go read(a.link, a.messages)
	if err := a.sendStore(); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // it would wait for the rest for ever
		return fmt.Errorf("send store: %w", err)
	}
	return nil
}

func (a *anchor) sendStore() error {
	for _, e := range a.store {
		if err := send(a.link, newMessage(e)); err != nil {
			return err
		}
	}
	return send(a.link, &message{Op: opReady})
}

// read passes on what the worker sends, until it is gone.
func read(link int, messages chan<- *message) {
	defer close(messages)
	for {
		m, err := receive(link)
		switch {
		case errors.Is(err, errLinkClosed):
			return
		case err != nil: // such as one whose descriptors were too many for us
			slog.Error("message from the worker cannot be read", "err", err)
		default:
			messages <- m
		}
	}
}

func (a *anchor) unlink() {
	_ = unix.Close(a.link) // read to its end
	a.link, a.messages = -1, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client"
)

// impatient is how many times a person interrupts before the container is
// killed: the first process of a container ignores signals it has no handler
// for.
const impatient = 3

// foreground starts the container and stays with it until it has ended.
//
// A terminal is attached to. Without one the output is read from the log,
// which loses nothing however slowly this program's own output is read, and
// only stdin is attached. Where the person detaches it returns nil.
func (a *app) foreground(ctx context.Context, c *client.Client, created client.Created, f *runFlags, t *terminal) (*apiv1.WaitResponse, error) {
	defer t.restore()
	id := created.ContainerID
	streams := client.AttachIO{}
	followed, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := &detacher{from: a.in, detach: cancel}
	switch {
	case f.interactive && f.tty:
		streams.Stdin = keys
	case f.interactive:
		streams.Stdin = a.in
	}
	if f.tty {
		streams.Stdout = a.out
		streams.Size, streams.Sizes = t.size(), t.sizes()
	}
	var attachment *client.Attachment
	if f.interactive || f.tty {
		var err error
		if attachment, err = c.Attach(followed, id, streams); err != nil {
			c.Discard(ctx, created)
			return nil, err
		}
	}
	// Signals are caught before there is anything that they could miss.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	// What is typed from here on is echoed by the container's terminal alone.
	if err := t.raw(); err != nil {
		c.Discard(ctx, created)
		return nil, err
	}
	if err := c.Start(ctx, created); err != nil {
		return nil, err
	}
	end, err := a.follow(followed, c, id, attachment, f.tty, signals)
	if keys.detached.Load() {
		return nil, nil
	}
	return end, err
}

// follow shows output and passes signals on until the container has ended.
func (a *app) follow(ctx context.Context, c *client.Client, id string, attachment *client.Attachment, tty bool, signals <-chan os.Signal) (*apiv1.WaitResponse, error) {
	var end *apiv1.WaitResponse
	over := make(chan struct{})
	var g errgroup.Group
	g.Go(func() (err error) {
		defer close(over)
		end, err = c.Wait(ctx, id)
		return err
	})
	g.Go(func() error {
		a.forward(ctx, c, id, signals, over)
		return nil
	})
	if attachment != nil {
		g.Go(func() error { return ignoreHangup(attachment.Run(ctx)) })
	}
	if !tty {
		g.Go(func() error { return c.Logs(ctx, id, client.LogOptions{Follow: true, Tail: -1}, a.out, a.errOut) })
	}
	err := g.Wait()
	switch {
	case end == nil:
		return nil, fmt.Errorf("lost sight of container %s, which may run on: %w", client.ShortID(id), err)
	case err != nil:
		// The exit code is known: the lost output is worth a word, not the code.
		a.complain(fmt.Errorf("output was cut short: %w", err))
	}
	return end, nil
}

// ignoreHangup drops the error of an output that nobody reads any more.
func ignoreHangup(err error) error {
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// forward passes signals to the container until it has ended. A signal that
// comes too late is nobody's.
func (a *app) forward(ctx context.Context, c *client.Client, id string, signals <-chan os.Signal, over <-chan struct{}) {
	for interrupts := 0; ; {
		select {
		case <-over:
			return
		case s := <-signals:
			number := s.(unix.Signal)
			if number == unix.SIGINT || number == unix.SIGTERM {
				interrupts++
			}
			if interrupts == impatient {
				number = unix.SIGKILL
				a.complain(errors.New("the container does not heed signals: it is killed"))
			}
			_, _ = c.Admin.Kill(ctx, &apiv1.KillRequest{ContainerId: id, Signal: int32(number)}) // see above
		}
	}
}

package client

import (
	"context"
	"errors"
	"io"
	"sync"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// AttachIO holds a person's ends of a container's stdio; nil leaves a stream
// out. With a terminal, Stderr is nil.
type AttachIO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Size is the terminal's size at first, Sizes those that follow.
	Size  *apiv1.TerminalSize
	Sizes <-chan *apiv1.TerminalSize
}

// Attachment is a connection to a container's stdio.
type Attachment struct {
	client *Client
	id     string
	io     AttachIO

	mu      sync.Mutex // one Send at a time
	changed sync.Cond  // stream or over has
	stream  apiv1.Admin_AttachClient
	size    *apiv1.TerminalSize // the last
	over    bool
}

// Attach connects to the container, which need not have been started: nothing
// of what it writes from then on is missed. Run moves the bytes.
func (c *Client) Attach(ctx context.Context, id string, a AttachIO) (*Attachment, error) {
	stream, err := connect(ctx, c.Admin, id, a, a.Size)
	if err != nil {
		return nil, err
	}
	at := &Attachment{client: c, id: id, io: a, stream: stream, size: a.Size}
	at.changed.L = &at.mu
	return at, nil
}

func connect(ctx context.Context, admin apiv1.AdminClient, id string, a AttachIO, size *apiv1.TerminalSize) (apiv1.Admin_AttachClient, error) {
	stream, err := admin.Attach(ctx)
	if err != nil {
		return nil, err
	}
	start := &apiv1.AttachStart{ContainerId: id, Stdin: a.Stdin != nil, Stdout: a.Stdout != nil, Stderr: a.Stderr != nil, Size: size}
	err = stream.Send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_Start{Start: start}})
	if err != nil && !errors.Is(err, io.EOF) { // EOF: Recv has the reason
		return nil, err
	}
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	return stream, nil
}

// Run copies until the container or ctx ends, which is that of Attach. A daemon
// that goes away for a while is connected to again: what the container writes
// meanwhile is in its log alone. A Stdin that blocks in Read is left behind: a
// terminal's cannot be interrupted.
func (a *Attachment) Run(ctx context.Context) error {
	sizes, cancel := context.WithCancel(ctx)
	defer cancel()
	defer a.end()
	go a.copyIn()
	go a.passSizes(sizes)
	again := false
	return a.client.outlast(ctx, func() error {
		if again {
			if err := a.reconnect(ctx); err != nil {
				return err
			}
		}
		err := a.receive()
		if again && (errors.Is(err, errs.Conflict) || errors.Is(err, errs.NotFound)) {
			return nil // it ended meanwhile
		}
		again = true
		return err
	})
}

func (a *Attachment) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.changed.Broadcast()
}

func (a *Attachment) reconnect(ctx context.Context) error {
	a.mu.Lock()
	size := a.size
	a.mu.Unlock()
	stream, err := connect(ctx, a.client.Admin, a.id, a.io, size)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stream = stream
	a.changed.Broadcast()
	return nil
}

func (a *Attachment) receive() error {
	for {
		m, err := a.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := m.Response.(type) {
		case *apiv1.AttachResponse_Stdout:
			_, err = a.io.Stdout.Write(r.Stdout)
		case *apiv1.AttachResponse_Stderr:
			_, err = a.io.Stderr.Write(r.Stderr)
		}
		if err != nil {
			return err
		}
	}
}

func (a *Attachment) copyIn() {
	if a.io.Stdin == nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := a.io.Stdin.Read(buf)
		if n > 0 && a.send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_Stdin{Stdin: buf[:n]}}) != nil {
			return
		}
		if err != nil {
			// A stream that has ended needs no word of it.
			_ = a.send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_CloseStdin{CloseStdin: true}})
			return
		}
	}
}

func (a *Attachment) passSizes(ctx context.Context) {
	for {
		select {
		case s, ok := <-a.io.Sizes:
			if !ok || a.send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_Size{Size: s}}) != nil {
				return
			}
			a.mu.Lock()
			a.size = s
			a.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// send waits for the next connection where this one is lost. It fails once
// there will be none.
func (a *Attachment) send(m *apiv1.AttachRequest) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.over {
		stream := a.stream
		if stream.Send(m) == nil {
			return nil
		}
		for a.stream == stream && !a.over {
			a.changed.Wait()
		}
	}
	return io.EOF
}

package client

import (
	"context"
	"errors"
	"io"
	"sync"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
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
	stream apiv1.Admin_AttachClient
	io     AttachIO

	mu sync.Mutex // one Send at a time
}

// Attach connects to the container, which need not have been started: nothing
// of what it writes from then on is missed. Run moves the bytes.
func (c *Client) Attach(ctx context.Context, id string, a AttachIO) (*Attachment, error) {
	stream, err := c.Admin.Attach(ctx)
	if err != nil {
		return nil, err
	}
	start := &apiv1.AttachStart{ContainerId: id, Stdin: a.Stdin != nil, Stdout: a.Stdout != nil, Stderr: a.Stderr != nil, Size: a.Size}
	err = stream.Send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_Start{Start: start}})
	if err != nil && !errors.Is(err, io.EOF) { // EOF: Recv has the reason
		return nil, err
	}
	if _, err := stream.Recv(); err != nil {
		return nil, err
	}
	return &Attachment{stream: stream, io: a}, nil
}

// Run copies until the container ends or the context of Attach does. A Stdin
// that blocks in Read is left behind: a terminal's cannot be interrupted.
func (a *Attachment) Run() error {
	go a.copyIn()
	go a.passSizes()
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

func (a *Attachment) passSizes() {
	for {
		select {
		case s, ok := <-a.io.Sizes:
			if !ok || a.send(&apiv1.AttachRequest{Request: &apiv1.AttachRequest_Size{Size: s}}) != nil {
				return
			}
		case <-a.stream.Context().Done():
			return
		}
	}
}

func (a *Attachment) send(m *apiv1.AttachRequest) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stream.Send(m)
}

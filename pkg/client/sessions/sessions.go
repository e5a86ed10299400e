// Package sessions is how programs for people have commands in containers and
// connections into pods, over the admin API. It keeps nothing; a goroutine that
// waits in Read of the person's input is left behind where that cannot be
// interrupted, as a terminal's cannot.
package sessions

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// IO holds a person's ends; Stdin may be nil.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Sizes are those of the terminal that follow the first; nil is none.
	Sizes <-chan *apiv1.TerminalSize
}

// Exec runs a command to its end and returns its exit code, after all of its
// output has been written. The end of ctx hangs up.
func Exec(ctx context.Context, admin apiv1.AdminClient, start *apiv1.ExecStart, p IO) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := admin.Exec(ctx)
	if err != nil {
		return 0, err
	}
	start.Stdin = p.Stdin != nil
	s := &sender{stream: stream}
	// A stream that has ended tells why by Recv.
	_ = s.send(&apiv1.ExecRequest{Request: &apiv1.ExecRequest_Start{Start: start}})
	if p.Stdin != nil {
		go s.copyIn(p.Stdin)
	}
	if p.Sizes != nil {
		go s.passSizes(ctx, p.Sizes)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return 0, err
		}
		switch r := m.Response.(type) {
		case *apiv1.ExecResponse_Stdout:
			_, err = p.Stdout.Write(r.Stdout)
		case *apiv1.ExecResponse_Stderr:
			_, err = p.Stderr.Write(r.Stderr)
		case *apiv1.ExecResponse_ExitCode:
			return int(r.ExitCode), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// sender sends one message at a time.
type sender struct {
	mu     sync.Mutex
	stream apiv1.Admin_ExecClient
}

func (s *sender) send(m *apiv1.ExecRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

func (s *sender) copyIn(from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && s.send(&apiv1.ExecRequest{Request: &apiv1.ExecRequest_Stdin{Stdin: buf[:n]}}) != nil {
			return
		}
		if err != nil {
			_ = s.send(&apiv1.ExecRequest{Request: &apiv1.ExecRequest_CloseStdin{CloseStdin: true}}) // the session may be over
			return
		}
	}
}

func (s *sender) passSizes(ctx context.Context, sizes <-chan *apiv1.TerminalSize) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok || s.send(&apiv1.ExecRequest{Request: &apiv1.ExecRequest_Size{Size: size}}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Forward connects conn to a port of a pod until both sides have ended, and closes
// it.
func Forward(ctx context.Context, admin apiv1.AdminClient, podID string, port uint16, conn *net.TCPConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	stream, err := admin.Forward(ctx)
	if err != nil {
		return err
	}
	// A stream that has ended tells why by Recv.
	_ = stream.Send(&apiv1.ForwardRequest{Request: &apiv1.ForwardRequest_Start{Start: &apiv1.ForwardStart{PodId: podID, Port: uint32(port)}}})
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := conn.Read(buf)
			if n > 0 && stream.Send(&apiv1.ForwardRequest{Request: &apiv1.ForwardRequest_Data{Data: buf[:n]}}) != nil {
				return
			}
			if errors.Is(err, io.EOF) {
				_ = stream.Send(&apiv1.ForwardRequest{Request: &apiv1.ForwardRequest_CloseWrite{CloseWrite: true}}) // see above
				return
			}
			if err != nil {
				cancel()
				return
			}
		}
	}()
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if _, err := conn.Write(m.GetData()); err != nil {
			return err
		}
		if m.GetCloseWrite() {
			_ = conn.CloseWrite() // it may be closed
		}
	}
}

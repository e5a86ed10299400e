package admin

import (
	"fmt"
	"io"

	"google.golang.org/grpc"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/session"
)

// Exec runs a command with the client's streams.
func (s *Server) Exec(stream grpc.BidiStreamingServer[apiv1.ExecRequest, apiv1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	switch {
	case start == nil:
		return fmt.Errorf("exec: the first message says nothing of what to run: %w", errs.Invalid)
	case s.deps.Sessions == nil:
		return fmt.Errorf("exec: %w", errs.Unsupported)
	}
	ctx, cancel := untilStopping(stream.Context(), s.deps.Stopping)
	defer cancel(nil)
	c := newClient(start.GetSize(), func() (message, error) { return stream.Recv() })
	defer c.close()
	st := session.Streams{Terminal: start.GetTerminal(), Sizes: c.sizes}
	if start.GetStdin() {
		st.Stdin = c.stdin
	}
	st.Stdout = c.output(func(b []byte) error {
		return stream.Send(&apiv1.ExecResponse{Response: &apiv1.ExecResponse_Stdout{Stdout: b}})
	})
	if !st.Terminal {
		st.Stderr = c.output(func(b []byte) error {
			return stream.Send(&apiv1.ExecResponse{Response: &apiv1.ExecResponse_Stderr{Stderr: b}})
		})
	}
	exit, err := s.deps.Sessions.Exec(ctx, start.GetContainerId(), start.GetCommand(), st)
	if err != nil {
		return stoppedBy(ctx, err)
	}
	return c.locked(func() error {
		return stream.Send(&apiv1.ExecResponse{Response: &apiv1.ExecResponse_ExitCode{ExitCode: exit}})
	})
}

// Forward is one connection into a pod.
func (s *Server) Forward(stream grpc.BidiStreamingServer[apiv1.ForwardRequest, apiv1.ForwardResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	switch {
	case start == nil, start.GetPort() < 1, start.GetPort() > 65535:
		return fmt.Errorf("forward: the first message names no port of a pod: %w", errs.Invalid)
	case s.deps.Sessions == nil:
		return fmt.Errorf("forward: %w", errs.Unsupported)
	}
	ctx, cancel := untilStopping(stream.Context(), s.deps.Stopping)
	defer cancel(nil)
	err = s.deps.Sessions.Forward(ctx, start.GetPodId(), uint16(start.GetPort()), &forwardClient{stream: stream})
	return stoppedBy(ctx, err)
}

// forwardClient is the other end of one Forward.
type forwardClient struct {
	stream grpc.BidiStreamingServer[apiv1.ForwardRequest, apiv1.ForwardResponse]
	rest   []byte
	closed bool
}

// Read implements io.Reader.
func (f *forwardClient) Read(p []byte) (int, error) {
	for len(f.rest) == 0 {
		r, err := f.stream.Recv()
		if err != nil {
			return 0, err
		}
		if r.GetCloseWrite() {
			return 0, io.EOF
		}
		f.rest = r.GetData()
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// Write implements io.Writer.
func (f *forwardClient) Write(p []byte) (int, error) {
	if err := f.stream.Send(&apiv1.ForwardResponse{Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer. It tells the client that no more follows.
func (f *forwardClient) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.stream.Send(&apiv1.ForwardResponse{CloseWrite: true})
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

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
	e := &execClient{stream: stream, sizes: make(chan session.Size, 1)}
	stdin, fill := io.Pipe()
	defer stdin.Close()
	e.resize(start.GetSize())
	go e.receive(fill) // ends when the handler has returned
	st := session.Streams{Stdout: execOutput{e, execStdout}, Terminal: start.GetTerminal(), Sizes: e.sizes}
	if start.GetStdin() {
		st.Stdin = stdin
	}
	if !st.Terminal {
		st.Stderr = execOutput{e, execStderr}
	}
	exit, err := s.deps.Sessions.Exec(ctx, start.GetContainerId(), start.GetCommand(), st)
	if err != nil {
		return stoppedBy(ctx, err)
	}
	return e.send(&apiv1.ExecResponse{Response: &apiv1.ExecResponse_ExitCode{ExitCode: exit}})
}

func stoppedBy(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStopping) {
		return errStopping
	}
	return err
}

// execClient is the other end of one Exec.
type execClient struct {
	stream grpc.BidiStreamingServer[apiv1.ExecRequest, apiv1.ExecResponse]
	sizes  chan session.Size

	mu sync.Mutex // one Send at a time
}

// receive passes on what the client sends. Input that nobody takes any more is
// dropped.
func (e *execClient) receive(stdin *io.PipeWriter) {
	defer stdin.Close()
	for {
		r, err := e.stream.Recv()
		if err != nil {
			return
		}
		switch r := r.Request.(type) {
		case *apiv1.ExecRequest_Stdin:
			_, _ = stdin.Write(r.Stdin) // see above
		case *apiv1.ExecRequest_CloseStdin:
			_ = stdin.Close() // never fails
		case *apiv1.ExecRequest_Size:
			e.resize(r.Size)
		}
	}
}

// resize keeps the newest size for whoever asks next.
func (e *execClient) resize(s *apiv1.TerminalSize) {
	if s == nil {
		return
	}
	select {
	case <-e.sizes:
	default:
	}
	e.sizes <- session.Size{Width: uint16(s.GetWidth()), Height: uint16(s.GetHeight())}
}

func (e *execClient) send(m *apiv1.ExecResponse) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stream.Send(m)
}

// execOutput is one output of the command.
type execOutput struct {
	e    *execClient
	wrap func([]byte) *apiv1.ExecResponse
}

func execStdout(b []byte) *apiv1.ExecResponse {
	return &apiv1.ExecResponse{Response: &apiv1.ExecResponse_Stdout{Stdout: b}}
}

func execStderr(b []byte) *apiv1.ExecResponse {
	return &apiv1.ExecResponse{Response: &apiv1.ExecResponse_Stderr{Stderr: b}}
}

// Write implements io.Writer.
func (o execOutput) Write(p []byte) (int, error) {
	if err := o.e.send(o.wrap(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer. The end of an output is not told by itself.
func (o execOutput) Close() error { return nil }

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

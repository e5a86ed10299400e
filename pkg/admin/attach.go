package admin

import (
	"fmt"

	"google.golang.org/grpc"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/session"
)

// Attach connects the stream to a container's stdio. It ends when the container
// does, or when the client goes away. Output that the client does not read in
// time is berth-runtime's to drop, and so is what comes while a worker of it is
// replaced by the next.
func (s *Server) Attach(stream grpc.BidiStreamingServer[apiv1.AttachRequest, apiv1.AttachResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fmt.Errorf("attach: the first message names no container: %w", errs.Invalid)
	}
	ctx, cancel := untilStopping(stream.Context(), s.deps.Stopping)
	defer cancel(nil)
	if err := stream.Send(&apiv1.AttachResponse{Response: &apiv1.AttachResponse_Attached{Attached: &apiv1.Attached{}}}); err != nil {
		return err
	}
	c := newClient(start.GetSize(), func() (message, error) { return stream.Recv() })
	defer c.close()
	st := session.Streams{Sizes: c.sizes}
	if start.GetStdin() {
		st.Stdin = c.stdin
	}
	if start.GetStdout() {
		st.Stdout = c.output(func(b []byte) error {
			return stream.Send(&apiv1.AttachResponse{Response: &apiv1.AttachResponse_Stdout{Stdout: b}})
		})
	}
	if start.GetStderr() {
		st.Stderr = c.output(func(b []byte) error {
			return stream.Send(&apiv1.AttachResponse{Response: &apiv1.AttachResponse_Stderr{Stderr: b}})
		})
	}
	return stoppedBy(ctx, session.Attach(ctx, s.deps.Runtime, start.GetContainerId(), st))
}

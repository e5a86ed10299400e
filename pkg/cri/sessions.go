package cri

import (
	"context"
	"fmt"
	"io"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/container"
	"github.com/berth-run/berth/pkg/cri/stream"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/network/inside"
	"github.com/berth-run/berth/pkg/pod"
	"github.com/berth-run/berth/pkg/runtime"
	"github.com/berth-run/berth/pkg/session"
)

// Streams answers the calls that end in a streaming session, each with the URL
// where it is to be had.
type Streams struct {
	Sessions *Sessions
	// URL leaves a request with the streaming server.
	URL func(stream.Request) (string, error)
}

// Exec prepares a command in a running container.
func (s *Streams) Exec(_ context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	c, err := s.Sessions.command(r.GetContainerId(), r.GetCmd(), r.GetTty())
	if err != nil {
		return nil, err
	}
	u, err := s.URL(stream.Request{
		Verb: stream.Exec, ID: c.ID, Cmd: r.GetCmd(), Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(), TTY: r.GetTty(),
	})
	return &runtimeapi.ExecResponse{Url: u}, err
}

// Attach prepares a connection to a running container's own streams.
func (s *Streams) Attach(_ context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	c, err := s.Sessions.running(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	u, err := s.URL(stream.Request{Verb: stream.Attach, ID: c.ID, Stdin: r.GetStdin(), Stdout: r.GetStdout(), Stderr: r.GetStderr(), TTY: r.GetTty()})
	return &runtimeapi.AttachResponse{Url: u}, err
}

// PortForward prepares connections to ports of a ready pod.
func (s *Streams) PortForward(_ context.Context, r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	p, err := s.Sessions.ready(r.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	for _, port := range r.GetPort() {
		if port < 1 || port > 65535 {
			return nil, fmt.Errorf("port %d: %w", port, errs.Invalid)
		}
	}
	u, err := s.URL(stream.Request{Verb: stream.PortForward, ID: p.ID, Ports: r.GetPort()})
	return &runtimeapi.PortForwardResponse{Url: u}, err
}

// Sessions is what streaming sessions reach.
type Sessions struct {
	Containers *container.Service
	Pods       *pod.Service
	Runtime    runtime.Runtime
}

var _ stream.Runtime = (*Sessions)(nil)

// Exec implements stream.Runtime.
func (s *Sessions) Exec(ctx context.Context, id string, cmd []string, st session.Streams) (int32, error) {
	r, err := s.command(id, cmd, st.Terminal)
	if err != nil {
		return 0, err
	}
	return session.Exec(ctx, s.Runtime, r, st)
}

// Attach implements stream.Runtime.
func (s *Sessions) Attach(ctx context.Context, id string, st session.Streams) error {
	return session.Attach(ctx, s.Runtime, id, st)
}

// Forward implements stream.Runtime.
func (s *Sessions) Forward(ctx context.Context, podID string, port uint16, st io.ReadWriteCloser) error {
	p, err := s.ready(podID)
	if err != nil {
		return err
	}
	conn, err := inside.DialLoopback(ctx, p.NetNS, port)
	if err != nil {
		return err
	}
	return session.Forward(ctx, conn, st)
}

func (s *Sessions) command(id string, cmd []string, tty bool) (runtime.ExecRequest, error) {
	c, err := s.Containers.Get(id)
	if err != nil {
		return runtime.ExecRequest{}, err
	}
	return c.Command(cmd, tty)
}

func (s *Sessions) running(id string) (*container.Container, error) {
	c, err := s.Containers.Get(id)
	if err == nil && c.Status.State != container.Running {
		err = fmt.Errorf("container %s is %s, not running: %w", id, c.Status.State, errs.Conflict)
	}
	return c, err
}

func (s *Sessions) ready(id string) (*pod.Sandbox, error) {
	p, err := s.Pods.Get(id)
	if err == nil && p.State != pod.Ready {
		err = fmt.Errorf("pod %s is not ready: %w", id, errs.Conflict)
	}
	return p, err
}

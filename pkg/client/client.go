// Package client is how programs for people talk to berthd: one connection for
// CRI and the admin API, errors as errs kinds in plain words, and the few
// things that take more than one call (run, remove, logs, attach).
//
// It keeps no state and nothing on disk. Its goroutines live within one call.
package client

import (
	"context"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// DefaultHost is where berthd listens unless told otherwise.
const DefaultHost = "unix:///run/berth/berth.sock"

// HostEnv names the environment variable that holds the daemon's address.
const HostEnv = "BERTH_HOST"

// maxMessageBytes is what berthd sends at most.
const maxMessageBytes = 16 << 20

// Client is a connection to berthd. It may be used concurrently.
type Client struct {
	// Runtime, Images and Admin are the daemon's three services. Their errors
	// carry errs kinds.
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	Admin   apiv1.AdminClient

	conn *grpc.ClientConn
}

// Dial returns a Client of the daemon at host, a unix:// address or a path;
// empty means $BERTH_HOST, else DefaultHost. It does not wait for the daemon:
// the first call tells whether it is there.
func Dial(host string) (*Client, error) {
	if host == "" {
		host = os.Getenv(HostEnv)
	}
	if host == "" {
		host = DefaultHost
	}
	path, err := socketPath(host)
	if err != nil {
		return nil, err
	}
	t := translator{path}
	conn, err := grpc.NewClient("unix://"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithUnaryInterceptor(t.unary),
		grpc.WithStreamInterceptor(t.stream),
	)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", host, err)
	}
	return &Client{
		Runtime: runtimeapi.NewRuntimeServiceClient(conn),
		Images:  runtimeapi.NewImageServiceClient(conn),
		Admin:   apiv1.NewAdminClient(conn),
		conn:    conn,
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func socketPath(host string) (string, error) {
	path, isUnix := strings.CutPrefix(host, "unix://")
	if !strings.HasPrefix(path, "/") || (!isUnix && strings.Contains(host, "://")) {
		return "", fail(errs.Invalid, "host %q: berthd is reached by a unix socket, as in %s", host, DefaultHost)
	}
	return path, nil
}

// translator turns gRPC's errors into errors that a person can act on.
type translator struct{ socket string }

func (t translator) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return t.translate(invoke(ctx, method, req, reply, conn, opts...))
}

func (t translator) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, t.translate(err)
	}
	return &translatedStream{s, t}, nil
}

type translatedStream struct {
	grpc.ClientStream
	t translator
}

func (s *translatedStream) RecvMsg(m any) error { return s.t.translate(s.ClientStream.RecvMsg(m)) }
func (s *translatedStream) SendMsg(m any) error { return s.t.translate(s.ClientStream.SendMsg(m)) }

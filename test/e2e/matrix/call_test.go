package matrix

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// reply is what one call was answered: one message, or those of a stream.
type reply []proto.Message

// call is a request and what it is to do.
type call struct {
	request proto.Message
	// during runs while a stream is open, where it is not nil.
	during func() error
	// enough tells of a stream without an end that its reader goes away.
	enough func(proto.Message) bool
	// effect fails the test unless the effect of the call is there, once for any
	// number of calls, of which replies are the answers.
	effect func(t *testing.T, replies []reply)
	// once, where it is not nil, fails the test where calls at once did more than one
	// does.
	once func(t *testing.T)
}

// the returns the first message of a reply.
func the[M proto.Message](r reply) M { return r[0].(M) }

// line is a connection of our own: the node's speaks in clients.
var line struct {
	sync.Mutex
	conn *grpc.ClientConn
}

func dial() (*grpc.ClientConn, error) {
	line.Lock()
	defer line.Unlock()
	var err error
	if line.conn == nil {
		line.conn, err = grpc.NewClient("unix://"+berth.Socket(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
	}
	return line.conn, err
}

// killed kills berthd, starts it again and waits until it answers.
func killed(t *testing.T) {
	t.Helper()
	if err := berth.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := berth.Start(); err != nil {
		t.Fatal(err)
	}
	line.Lock()
	defer line.Unlock()
	if line.conn != nil { // it would wait before it tries again
		line.conn.Close()
		line.conn = nil
	}
}

// do makes the call.
func (c call) do(ctx context.Context, m protoreflect.MethodDescriptor) (reply, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	answer, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		return nil, err
	}
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if !m.IsStreamingServer() {
		out := answer.New().Interface()
		if err := conn.Invoke(ctx, path, c.request, out); err != nil {
			return nil, err
		}
		return reply{out}, nil
	}
	ctx, cancel := context.WithCancel(ctx) // the reader goes away
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err == nil {
		err = s.SendMsg(c.request)
	}
	if err == nil {
		err = s.CloseSend()
	}
	if err == nil && c.during != nil {
		if _, err = s.Header(); err == nil {
			err = c.during()
		}
	}
	if err != nil {
		return nil, err
	}
	all := reply{}
	for {
		out := answer.New().Interface()
		err := s.RecvMsg(out)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if all = append(all, out); c.enough != nil && c.enough(out) {
			return all, nil
		}
	}
}

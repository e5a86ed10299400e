package sessions_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/berth-run/berth/pkg/admin"
	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/client/sessions"
	"github.com/berth-run/berth/pkg/edge"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/session"
)

// daemon's commands are functions; its port 80 gives back what it gets.
type daemon struct {
	exec func(ctx context.Context, cmd []string, s session.Streams) (int32, error)
}

func (d *daemon) Exec(ctx context.Context, _ string, cmd []string, s session.Streams) (int32, error) {
	return d.exec(ctx, cmd, s)
}

func (d *daemon) Forward(_ context.Context, podID string, port uint16, stream io.ReadWriteCloser) error {
	if port != 80 {
		return fmt.Errorf("connection refused: %w", errs.Conflict)
	}
	fmt.Fprint(stream, podID, ":")
	_, err := io.Copy(stream, stream)
	return errors.Join(err, stream.Close())
}

func serve(t *testing.T, d *daemon, stopping <-chan struct{}) apiv1.AdminClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := edge.NewServer(nil)
	admin.New(admin.Deps{Sessions: d, Stopping: stopping}).Register(server)
	go func() { _ = server.Serve(l) }() // ends with Stop
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return apiv1.NewAdminClient(conn)
}

func TestExecCarriesStreamsSizesAndTheExitCode(t *testing.T) {
	sized := make(chan session.Size, 2)
	c := serve(t, &daemon{exec: func(_ context.Context, cmd []string, s session.Streams) (int32, error) {
		sized <- <-s.Sizes
		in, err := io.ReadAll(s.Stdin)
		fmt.Fprint(s.Stdout, strings.Join(cmd, " "), ":", len(in))
		fmt.Fprint(s.Stderr, "bad")
		sized <- <-s.Sizes
		return 7, err
	}}, nil)
	sizes := make(chan *apiv1.TerminalSize, 1)
	var out, errOut bytes.Buffer
	start := &apiv1.ExecStart{ContainerId: "c", Command: []string{"a", "b"}, Size: &apiv1.TerminalSize{Width: 90, Height: 30}}
	in := make([]byte, 1<<20)
	time.AfterFunc(50*time.Millisecond, func() { sizes <- &apiv1.TerminalSize{Width: 100, Height: 40} })
	exit, err := sessions.Exec(t.Context(), c, start, sessions.IO{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &errOut, Sizes: sizes})
	if err != nil || exit != 7 || out.String() != "a b:1048576" || errOut.String() != "bad" {
		t.Errorf("exit %d, %q, %q, %v", exit, &out, &errOut, err)
	}
	if first, second := <-sized, <-sized; first != (session.Size{Width: 90, Height: 30}) || second != (session.Size{Width: 100, Height: 40}) {
		t.Errorf("sizes %v, %v", first, second)
	}
}

func TestExecWithoutInputOrWithATerminalHasFewerStreams(t *testing.T) {
	c := serve(t, &daemon{exec: func(_ context.Context, _ []string, s session.Streams) (int32, error) {
		if s.Stdin != nil || s.Stderr != nil || !s.Terminal {
			return 1, nil
		}
		return 0, nil
	}}, nil)
	if exit, err := sessions.Exec(t.Context(), c, &apiv1.ExecStart{Terminal: true}, sessions.IO{Stdout: io.Discard}); err != nil || exit != 0 {
		t.Errorf("exit %d, %v", exit, err)
	}
}

func TestExecEndsWithItsClientAndWithTheDaemon(t *testing.T) {
	began, ended := make(chan bool), make(chan bool)
	stopping := make(chan struct{})
	c := serve(t, &daemon{exec: func(ctx context.Context, _ []string, _ session.Streams) (int32, error) {
		began <- true
		<-ctx.Done()
		ended <- true
		return 0, ctx.Err()
	}}, stopping)
	for _, end := range []func(cancel func()){func(cancel func()) { cancel() }, func(func()) { close(stopping) }} {
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			_, err := sessions.Exec(ctx, c, &apiv1.ExecStart{}, sessions.IO{Stdout: io.Discard, Stderr: io.Discard})
			result <- err
		}()
		<-began
		end(cancel)
		<-ended
		if err := <-result; status.Code(err) != codes.Canceled && status.Code(err) != codes.Unavailable {
			t.Errorf("ended with %v", err)
		}
		cancel()
	}
}

// pair is a connection's two ends.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestForwardCarriesBytesAndTheirEnds(t *testing.T) {
	c := serve(t, &daemon{}, nil)
	ours, theirs := pair(t)
	done := make(chan error, 1)
	go func() { done <- sessions.Forward(t.Context(), c, "pod", 80, theirs) }()
	in := bytes.Repeat([]byte("x"), 1<<20)
	go func() { _, _ = ours.Write(in); _ = ours.CloseWrite() }() // what comes back tells
	if got, err := io.ReadAll(ours); err != nil || string(got) != "pod:"+string(in) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_, theirs = pair(t)
	if err := sessions.Forward(t.Context(), c, "pod", 81, theirs); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("where nobody listens: %v", err)
	}
}

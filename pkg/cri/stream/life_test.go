package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/berth-run/berth/pkg/session"
	"github.com/berth-run/berth/test/testutil"
)

func TestASessionEndsWithItsClientEvenIfNobodyReads(t *testing.T) {
	for name, input := range map[string]io.Reader{"idle": neverending{}, "sending": endless{}} {
		t.Run(name, func(t *testing.T) {
			began, ended := make(chan bool, 1), make(chan bool, 1)
			s := start(t, Options{}, &fake{exec: func(ctx context.Context, _ []string, _ session.Streams) (int32, error) {
				began <- true
				<-ctx.Done()
				ended <- true
				return 0, ctx.Err()
			}})
			eachTransport(t, func(t *testing.T, stream streamer) {
				line := cable(t, s.base.Host)
				to := strings.Replace(s.ask(t, Request{Verb: Exec, ID: "c", Stdin: true, Stdout: true}), s.base.Host, line.Addr().String(), 1)
				ctx, cancel := context.WithCancel(t.Context())
				var client sync.WaitGroup
				client.Go(func() { _ = stream(ctx, to, remotecommand.StreamOptions{Stdin: input, Stdout: io.Discard}) })
				<-began
				if input == (endless{}) {
					<-line.full // its end comes behind what it sent
				}
				line.Close()
				defer client.Wait()
				defer cancel() // one whose connection is cut looks for it for a while
				select {
				case <-ended:
				case <-time.After(30 * time.Second):
					t.Fatal("it goes on without a client")
				}
			})
		})
	}
}

func TestAProgramMayReadLate(t *testing.T) {
	s := start(t, Options{}, &fake{exec: func(_ context.Context, _ []string, st session.Streams) (int32, error) {
		<-time.After(2*watching + watching/2) // see knock
		defer st.Stdout.Close()
		_, err := io.Copy(st.Stdout, st.Stdin)
		return 0, err
	}})
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20)
	eachTransport(t, func(t *testing.T, stream streamer) {
		if strings.Contains(t.Name(), "v4") {
			t.Skip("has no end of input")
		}
		t.Parallel()
		var got bytes.Buffer
		if err := stream(t.Context(), s.ask(t, Request{Verb: Exec, ID: "c", Stdin: true, Stdout: true}), remotecommand.StreamOptions{Stdin: bytes.NewReader(sent), Stdout: &got}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), sent) {
			t.Fatalf("%d bytes of %d came back", got.Len(), len(sent))
		}
	})
}

// cable is a connection to an address that can be cut.
func cable(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, full: make(chan bool)}
	t.Cleanup(func() { c.Close() })
	go func() {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		c.mu.Lock()
		c.ends = []net.Conn{near, far}
		c.mu.Unlock()
		go func() { _, _ = io.Copy(near, far) }()
		_, _ = io.Copy(stalling{far, sync.OnceFunc(func() { close(c.full) })}, struct{ io.Reader }{near})
	}()
	return c
}

type cutter struct {
	net.Listener
	full chan bool // closed once the far end has taken nothing for a while
	mu   sync.Mutex
	ends []net.Conn
}

func (c *cutter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range c.ends {
		end.Close()
	}
	return c.Listener.Close()
}

// stalling tells when a write takes long.
type stalling struct {
	io.Writer
	tell func()
}

func (s stalling) Write(p []byte) (int, error) {
	defer time.AfterFunc(500*time.Millisecond, s.tell).Stop()
	return s.Writer.Write(p)
}

type neverending struct{}

func (neverending) Read([]byte) (int, error) { select {} }

func TestCloseEndsSessions(t *testing.T) {
	began := make(chan bool, 1)
	s, err := Listen(Options{Address: "127.0.0.1:0"}, &fake{exec: func(ctx context.Context, _ []string, st session.Streams) (int32, error) {
		began <- true
		<-ctx.Done()
		return 0, errors.New("it stops")
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve() }()
	ended := make(chan error, 1)
	go func() {
		e, err := transports["WebSocket v5"](&rest.Config{}, s.ask(t, Request{Verb: Exec, ID: "c", Stdout: true}))
		if err == nil {
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
		}
		ended <- err
	}()
	<-began
	s.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "berthd is stopping") {
		t.Errorf("the client heard %v", err)
	}
	if len(s.conns) != 0 {
		t.Errorf("%d connections are left", len(s.conns))
	}
}

func TestSessionsLeaveNothing(t *testing.T) {
	s := start(t, Options{}, &fake{})
	once := func(stream streamer) {
		var out bytes.Buffer
		err := stream(t.Context(), s.ask(t, Request{Verb: Attach, ID: "c", Stdin: true, Stdout: true}), remotecommand.StreamOptions{Stdin: strings.NewReader("x"), Stdout: &out})
		if err != nil || out.String() != "x" {
			t.Errorf("got %q, %v", &out, err)
		}
	}
	for _, name := range []string{"SPDY", "WebSocket v5"} {
		stream := func(ctx context.Context, to string, o remotecommand.StreamOptions) error {
			e, err := transports[name](&rest.Config{}, to)
			if err != nil {
				return err
			}
			return e.StreamWithContext(ctx, o)
		}
		once(stream)
		before := runtime.NumGoroutine()
		for range 100 {
			once(stream)
		}
		testutil.Await(t, 20*time.Second, func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if now := runtime.NumGoroutine(); now > before+5 || len(s.conns) > 1 {
				return fmt.Errorf("%s: %d goroutines of %d, %d connections", name, now, before, len(s.conns))
			}
			return nil
		})
	}
}

// What carried the sizes on waited for a program that had not begun
// (CVE-2022-23471), and attached ones for a container that had ended
// (CVE-2025-64329).
func TestTerminalsOfSessionsThatFailLeaveNothing(t *testing.T) {
	wrong := func(context.Context, session.Streams) error { return errors.New("no such program") }
	s := start(t, Options{}, &fake{attach: wrong, exec: func(ctx context.Context, _ []string, st session.Streams) (int32, error) { return 0, wrong(ctx, st) }})
	eachTransport(t, func(t *testing.T, stream streamer) {
		once := func(verb Verb) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			in, keys := io.Pipe()
			defer keys.Close()
			resized := &sizes{slices.Repeat([]remotecommand.TerminalSize{{Width: 90, Height: 30}}, 20), ctx}
			err := stream(ctx, s.ask(t, Request{Verb: verb, ID: "c", Cmd: []string{"x"}, Stdin: true, Stdout: true, TTY: true}), remotecommand.StreamOptions{
				Stdin: in, Stdout: io.Discard, Tty: true, TerminalSizeQueue: resized,
			})
			if err == nil || !strings.Contains(err.Error(), "no such program") {
				t.Errorf("%s: %v", verb, err)
			}
		}
		once(Exec)
		before := runtime.NumGoroutine()
		for range 50 {
			once(Exec)
			once(Attach)
		}
		testutil.Await(t, 20*time.Second, func() error {
			if now := runtime.NumGoroutine(); now > before+5 {
				return fmt.Errorf("%d goroutines of %d", now, before)
			}
			return nil
		})
	})
}

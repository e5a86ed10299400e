package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/session"
)

// fake is a Runtime of functions; those that are not set echo.
type fake struct {
	exec   func(ctx context.Context, cmd []string, s session.Streams) (int32, error)
	attach func(ctx context.Context, s session.Streams) error
}

func (f *fake) Exec(ctx context.Context, _ string, cmd []string, s session.Streams) (int32, error) {
	if f.exec != nil {
		return f.exec(ctx, cmd, s)
	}
	defer s.Stdout.Close()
	_, err := io.Copy(s.Stdout, s.Stdin)
	return 0, err
}

func (f *fake) Attach(ctx context.Context, _ string, s session.Streams) error {
	if f.attach != nil {
		return f.attach(ctx, s)
	}
	_, err := f.Exec(ctx, "", nil, s)
	return err
}

// Forward says which port it is, then echoes.
func (f *fake) Forward(_ context.Context, _ string, port uint16, stream io.ReadWriteCloser) error {
	defer stream.Close()
	if port == 1 {
		return errors.New("nobody listens")
	}
	fmt.Fprintf(stream, "%d:", port)
	_, err := io.Copy(stream, stream)
	return err
}

func start(t *testing.T, o Options, rt Runtime) *Server {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	s, err := Listen(o, rt)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *Server) ask(t *testing.T, r Request) string {
	t.Helper()
	u, err := s.URL(r)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var transports = map[string]func(c *rest.Config, to string) (remotecommand.Executor, error){
	"SPDY": func(c *rest.Config, to string) (remotecommand.Executor, error) {
		u, err := url.Parse(to)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutor(c, "POST", u)
	},
	"WebSocket v5": func(c *rest.Config, to string) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, "GET", to)
	},
	"WebSocket v4": func(c *rest.Config, to string) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutorForProtocols(c, "GET", to, "v4.channel.k8s.io")
	},
}

// eachTransport runs a test with each kind of client; stream has a session.
func eachTransport(t *testing.T, test func(t *testing.T, stream func(ctx context.Context, to string, o remotecommand.StreamOptions) error)) {
	t.Helper()
	for name, open := range transports {
		t.Run(name, func(t *testing.T) {
			test(t, func(ctx context.Context, to string, o remotecommand.StreamOptions) error {
				e, err := open(&rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, to)
				if err != nil {
					return err
				}
				return e.StreamWithContext(ctx, o)
			})
		})
	}
}

type streamer = func(ctx context.Context, to string, o remotecommand.StreamOptions) error

func TestExecCarriesAllStreamsAndTheExitCode(t *testing.T) {
	s := start(t, Options{}, &fake{exec: func(_ context.Context, cmd []string, st session.Streams) (int32, error) {
		n, err := io.CopyN(st.Stdout, st.Stdin, 5)
		fmt.Fprint(st.Stderr, strings.Join(cmd, " "), n)
		return 7, err
	}})
	eachTransport(t, func(t *testing.T, stream streamer) {
		var out, errOut bytes.Buffer
		err := stream(t.Context(), s.ask(t, Request{Verb: Exec, ID: "c", Cmd: []string{"a", "b"}, Stdin: true, Stdout: true, Stderr: true}), remotecommand.StreamOptions{
			Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut,
		})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("ended with %v", err)
		}
		if out.String() != "hello" || errOut.String() != "a b5" {
			t.Errorf("got %q and %q", &out, &errOut)
		}
	})
}

func TestInputEndsWhereTheProtocolHasAnEnd(t *testing.T) {
	s := start(t, Options{}, &fake{})
	eachTransport(t, func(t *testing.T, stream streamer) {
		if strings.HasSuffix(t.Name(), "v4") {
			t.Skip("v4 has no end of input") // which v5 was made for
		}
		var out bytes.Buffer
		in := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
		for _, verb := range []Verb{Exec, Attach} {
			out.Reset()
			err := stream(t.Context(), s.ask(t, Request{Verb: verb, ID: "c", Stdin: true, Stdout: true}), remotecommand.StreamOptions{Stdin: bytes.NewReader(in), Stdout: &out})
			if err != nil || !bytes.Equal(out.Bytes(), in) {
				t.Errorf("%s: %d of %d bytes came back, %v", verb, out.Len(), len(in), err)
			}
		}
	})
}

// endless is an input without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestTheLastOutputReachesAClientThatStillSends(t *testing.T) {
	const size = 4 << 20
	s := start(t, Options{}, &fake{exec: func(_ context.Context, _ []string, st session.Streams) (int32, error) {
		_, err := st.Stdout.Write(make([]byte, size))
		return 3, errors.Join(err, st.Stdout.Close())
	}})
	eachTransport(t, func(t *testing.T, stream streamer) {
		for range 5 {
			var out bytes.Buffer
			err := stream(t.Context(), s.ask(t, Request{Verb: Exec, ID: "c", Stdin: true, Stdout: true}), remotecommand.StreamOptions{Stdin: endless{}, Stdout: &out})
			var exit utilexec.CodeExitError
			if !errors.As(err, &exit) || exit.Code != 3 || out.Len() != size {
				t.Fatalf("%d bytes, %v", out.Len(), err)
			}
		}
	})
}

// sizes is a client's queue of terminal sizes.
type sizes struct {
	left []remotecommand.TerminalSize
	over context.Context
}

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(s.left) == 0 {
		<-s.over.Done()
		return nil
	}
	next := s.left[0]
	s.left = s.left[1:]
	return &next
}

func TestSizesArriveInOrder(t *testing.T) {
	s := start(t, Options{}, &fake{exec: func(ctx context.Context, _ []string, st session.Streams) (int32, error) {
		for range 2 {
			select {
			case size := <-st.Sizes:
				fmt.Fprint(st.Stdout, size.Width, "x", size.Height, " ")
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		return 0, st.Stdout.Close()
	}})
	eachTransport(t, func(t *testing.T, stream streamer) {
		var out bytes.Buffer
		in, keys := io.Pipe()
		defer keys.Close()
		err := stream(t.Context(), s.ask(t, Request{Verb: Exec, ID: "c", Stdin: true, Stdout: true, TTY: true}), remotecommand.StreamOptions{
			Stdin: in, Stdout: &out, Tty: true,
			TerminalSizeQueue: &sizes{[]remotecommand.TerminalSize{{Width: 90, Height: 30}, {Width: 100, Height: 40}}, t.Context()},
		})
		if err != nil || out.String() != "90x30 100x40 " {
			t.Errorf("got %q, %v", &out, err)
		}
	})
}

func TestAnErrorIsToldInWords(t *testing.T) {
	s := start(t, Options{}, &fake{exec: func(context.Context, []string, session.Streams) (int32, error) {
		return 0, errors.New("no such program")
	}})
	eachTransport(t, func(t *testing.T, stream streamer) {
		err := stream(t.Context(), s.ask(t, Request{Verb: Exec, ID: "c", Stdout: true}), remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "no such program") {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestAURLIsGoodOnceAndNotForLong(t *testing.T) {
	s := start(t, Options{TokenLifetime: 200 * time.Millisecond}, &fake{})
	get := func(u string) int {
		t.Helper()
		resp, err := http.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	r := Request{Verb: Exec, ID: "c", Stdin: true}
	u := s.ask(t, r)
	if wrong := strings.Replace(s.ask(t, r), "/exec/", "/attach/", 1); get(wrong) != http.StatusNotFound {
		t.Error("another verb's URL is good")
	}
	if got := get(u); got != http.StatusBadRequest { // a session, but no upgrade
		t.Errorf("first: %d", got)
	}
	if got := get(u); got != http.StatusNotFound {
		t.Errorf("second: %d", got)
	}
	u = s.ask(t, r)
	<-time.After(300 * time.Millisecond)
	if got := get(u); got != http.StatusNotFound {
		t.Errorf("too late: %d", got)
	}
	if got := get(s.base.String() + "/exec/none"); got != http.StatusNotFound {
		t.Errorf("made up: %d", got)
	}
}

func TestURLsLeadToTheAddressOrToLoopback(t *testing.T) {
	for address, want := range map[string]string{"127.0.0.1:0": "127.0.0.1", "127.0.0.2:0": "127.0.0.2", "[::1]:0": "::1", "0.0.0.0:0": "127.0.0.1", "[::]:0": "127.0.0.1"} {
		s := start(t, Options{Address: address}, &fake{})
		to := s.ask(t, Request{Verb: Exec, ID: "c", Stdin: true, Stdout: true})
		if u, err := url.Parse(to); err != nil || u.Hostname() != want {
			t.Errorf("%s: %s, %v", address, to, err)
		}
		var out bytes.Buffer
		e, err := transports["WebSocket v5"](&rest.Config{}, to)
		if err == nil {
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
		}
		if err != nil || out.String() != "hello" {
			t.Errorf("%s: %q, %v", address, &out, err)
		}
	}
	if _, err := Listen(Options{Address: "192.0.2.1:0"}, &fake{}); err == nil {
		t.Error("it serves where this machine is not")
	}
}

func TestRequestsThatWaitAreBounded(t *testing.T) {
	s := start(t, Options{TokenLifetime: time.Minute}, &fake{})
	for range maxTokens {
		s.ask(t, Request{Verb: PortForward, ID: "p"})
	}
	if _, err := s.URL(Request{Verb: PortForward, ID: "p"}); !errors.Is(err, errs.Exhausted) {
		t.Errorf("one more: %v", err)
	}
}

func TestRequestsThatMakeNoSenseAreInvalid(t *testing.T) {
	s := start(t, Options{}, &fake{})
	for name, r := range map[string]Request{
		"no id": {Verb: Exec, Stdin: true}, "no stream": {Verb: Attach, ID: "c"}, "two outputs of a terminal": {Verb: Exec, ID: "c", Stdout: true, Stderr: true, TTY: true},
		"no pod": {Verb: PortForward},
	} {
		if _, err := s.URL(r); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

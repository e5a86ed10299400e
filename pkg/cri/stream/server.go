package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/session"
)

// Runtime is what sessions reach. A method returns when its session is over.
type Runtime interface {
	// Exec returns the exit code of the command.
	Exec(ctx context.Context, containerID string, cmd []string, s session.Streams) (int32, error)
	Attach(ctx context.Context, containerID string, s session.Streams) error
	// Forward connects the stream to a port of the pod.
	Forward(ctx context.Context, podID string, port uint16, stream io.ReadWriteCloser) error
}

// Options say where and how to serve.
type Options struct {
	// Address is host:port; port 0 takes a free one.
	Address string
	// IdleTimeout ends sessions without traffic; 0 means four hours.
	IdleTimeout time.Duration
	// TokenLifetime is how long a URL is good for; 0 means half a minute.
	TokenLifetime time.Duration
	// TLS, where its Certificate is set, makes it HTTPS.
	TLS TLSFiles
}

const (
	defaultIdle     = 4 * time.Hour
	defaultLifetime = 30 * time.Second
	// closeLimit is how long sessions may take to say goodbye.
	closeLimit = 2 * time.Second
)

// Server has a listener from Listen on.
type Server struct {
	o        Options
	rt       Runtime
	base     url.URL
	tokens   tokens
	listener net.Listener
	http     *http.Server

	life     context.Context // of all sessions
	end      context.CancelFunc
	sessions sync.WaitGroup

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Listen opens the address. Serve answers, Close ends.
func Listen(o Options, rt Runtime) (*Server, error) {
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = defaultIdle
	}
	if o.TokenLifetime <= 0 {
		o.TokenLifetime = defaultLifetime
	}
	s := &Server{o: o, rt: rt, tokens: tokens{lifetime: o.TokenLifetime}, conns: map[*conn]struct{}{}}
	s.life, s.end = context.WithCancel(context.Background())
	var secure *tls.Config
	if o.TLS.Certificate != "" {
		var err error
		if secure, err = o.TLS.config(); err != nil {
			return nil, fmt.Errorf("streaming: %w", err)
		}
	}
	tcp, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("streaming: %w", err)
	}
	s.base = url.URL{Scheme: "http", Host: reachable(tcp.Addr().(*net.TCPAddr))}
	s.listener = listener{tcp, s}
	if secure != nil {
		s.base.Scheme = "https"
		s.listener = tls.NewListener(s.listener, secure)
	}
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ConnContext: connContext, ErrorLog: log.New(quiet{}, "", 0),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/2 has no upgrade
	}
	return s, nil
}

// reachable is the address as kubelet, on this machine, can use it.
func reachable(a *net.TCPAddr) string {
	if a.IP.IsUnspecified() {
		a.IP = net.IPv4(127, 0, 0, 1)
	}
	return a.String()
}

// quiet logs what net/http says of clients at the level of details.
type quiet struct{}

func (quiet) Write(p []byte) (int, error) {
	klog.Background().V(4).Info("Streaming connection", "said", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends all sessions, which tell their clients so. Containers run on.
func (s *Server) Close() {
	s.end()
	_ = s.http.Close() // connections are closed below
	_ = s.listener.Close()
	over := make(chan struct{})
	go func() { s.sessions.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(closeLimit):
	}
	s.mu.Lock()
	var left []*conn
	for c := range s.conns {
		left = append(left, c)
	}
	s.mu.Unlock()
	for _, c := range left {
		c.finish()
	}
}

// URL leaves a request to be opened once, and returns where.
func (s *Server) URL(r Request) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	token, err := s.tokens.put(r)
	if err != nil {
		return "", err
	}
	u := s.base
	u.Path = "/" + string(r.Verb) + "/" + token
	return u.String(), nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /{verb}/{token}", s.open)
	}
	return mux
}

// open begins the session that the URL's token stands for.
func (s *Server) open(w http.ResponseWriter, r *http.Request) {
	request, ok := s.tokens.take(r.PathValue("token"))
	if !ok || string(request.Verb) != r.PathValue("verb") {
		http.NotFound(w, r)
		return
	}
	s.sessions.Add(1)
	defer s.sessions.Done()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.life, func() { cancel(errStopping) })()
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		go c.watch(ctx)
	}
	r = r.WithContext(ctx)
	switch request.Verb {
	case Exec, Attach:
		s.remoteCommand(w, r, request)
	case PortForward:
		s.portForward(w, r, request)
	}
}

// check refuses what cannot be served.
func (r Request) check() error {
	switch {
	case r.ID == "":
		return fmt.Errorf("%s without an id: %w", r.Verb, errs.Invalid)
	case r.Verb == PortForward:
		return nil
	case r.TTY && r.Stderr:
		return fmt.Errorf("%s with a terminal and stderr: a terminal has one output: %w", r.Verb, errs.Invalid)
	case !r.Stdin && !r.Stdout && !r.Stderr:
		return fmt.Errorf("%s without stdin, stdout and stderr: %w", r.Verb, errs.Invalid)
	}
	return nil
}

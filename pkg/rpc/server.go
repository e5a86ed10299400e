package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
)

// requestLimit bounds how long a peer may take to send its request.
const requestLimit = 30 * time.Second

// replyLimit bounds each write to a peer that does not read.
const replyLimit = 30 * time.Second

// Handler serves one call. Its context ends when the client closes the
// connection, or with Shutdown. A nil result is an empty answer.
type Handler func(ctx context.Context, c *Call) (any, error)

// Call is a request being served.
type Call struct {
	Verb string

	body  []byte
	files []*os.File
	conn  *net.UnixConn
	long  func()
	log   *stage.Log // where the client asks for it
}

// Decode fills v from the request; malformed requests are errs.Invalid.
func (c *Call) Decode(v any) error {
	if err := json.Unmarshal(c.body, v); err != nil {
		return fmt.Errorf("%s: decode request: %w: %w", c.Verb, errs.Invalid, err)
	}
	return nil
}

// TakeFiles hands the passed files over to the caller, who closes them. Files
// that nobody takes are closed with the call.
func (c *Call) TakeFiles() []*os.File {
	files := c.files
	c.files = nil
	return files
}

// Long says that the call has no end of its own: Shutdown cancels it at once.
func (c *Call) Long() { c.long() }

// Send sends one item before the answer. Several goroutines may send.
func (c *Call) Send(item any) error { return c.reply(kindItem, item) }

// SendBytes is Send for an item that is a tag and bytes, as they are.
func (c *Call) SendBytes(tag byte, data []byte) error {
	b := begin(kindItem, "")
	b.WriteByte(tag)
	b.Write(data)
	frame, err := finish(b)
	if err != nil {
		return err
	}
	return c.write(frame)
}

func (c *Call) reply(k kind, v any) error {
	frame, err := encode(k, "", v)
	if err != nil {
		return err
	}
	return c.write(frame)
}

func (c *Call) write(frame *bytes.Buffer) error {
	defer putBuffer(frame)
	if err := c.conn.SetWriteDeadline(time.Now().Add(replyLimit)); err != nil {
		return err
	}
	_, err := c.conn.Write(frame.Bytes())
	return err
}

// Server accepts connections and runs the handler for each.
type Server struct {
	handler Handler
	calls   sync.WaitGroup

	mu       sync.Mutex
	stopping bool
	live     map[*Call]*liveCall
	listener *net.UnixListener
}

type liveCall struct {
	cancel context.CancelFunc
	long   bool
}

// NewServer returns a server that answers with h.
func NewServer(h Handler) *Server {
	return &Server{handler: h, live: map[*Call]*liveCall{}}
}

// Listen makes a socket at path, in a directory that only its owner may enter,
// replacing what a dead server left there.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close() // nobody has used it
		return nil, err
	}
	return l, nil
}

// Serve answers calls on l until Shutdown, which closes l. It returns once no
// call is left.
func (s *Server) Serve(l *net.UnixListener) error {
	s.mu.Lock()
	s.listener = l
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		_ = l.Close() // Shutdown came first
	}
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				s.calls.Wait()
				return nil
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors or memory: let calls end
			continue
		}
		s.calls.Go(func() { s.serve(conn) })
	}
}

// Shutdown stops accepting, cancels long calls, waits for the others until ctx
// ends, then cancels those and waits for at most grace more. It reports
// whether all have ended.
func (s *Server) Shutdown(ctx context.Context, grace time.Duration) bool {
	s.mu.Lock()
	s.stopping = true
	if s.listener != nil {
		_ = s.listener.Close() // a second close is harmless
	}
	s.mu.Unlock()
	s.cancelCalls(false)
	ended := make(chan struct{})
	go func() { s.calls.Wait(); close(ended) }()
	select {
	case <-ended:
		return true
	case <-ctx.Done():
	}
	s.cancelCalls(true)
	select {
	case <-ended:
		return true
	case <-time.After(grace):
		return false
	}
}

func (s *Server) cancelCalls(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.live {
		if all || l.long {
			l.cancel()
		}
	}
}

func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	call, err := s.accept(conn)
	if err != nil {
		_ = (&Call{conn: conn}).reply(kindFailure, errs.Encode(err)) // the peer may be gone
		return
	}
	defer func() { closeAll(call.files) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.track(call, cancel)
	defer s.untrack(call)
	s.calls.Go(func() {
		_, _ = conn.Read(make([]byte, 1)) // returns when either side closes
		cancel()
	})
	if call.log != nil {
		ctx = stage.With(ctx, call.log)
	}
	result, err := s.handler(ctx, call)
	if call.log != nil {
		_ = call.reply(kindPassed, call.log.Passed()) // what follows tells whether the peer is there
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) { // by Shutdown, or nobody listens
		err = fmt.Errorf("%s: the server ends: %w", call.Verb, errs.Unavailable)
	}
	if err != nil {
		_ = call.reply(kindFailure, errs.Encode(err)) // the peer may be gone
		return
	}
	if err := call.reply(kindResult, result); err != nil {
		_ = call.reply(kindFailure, errs.Encode(err)) // tells a reply that was too large
	}
}

func (s *Server) track(c *Call, cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &liveCall{cancel: cancel}
	s.live[c] = l
	c.long = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.long = true; s.stopping {
			cancel()
		}
	}
}

func (s *Server) untrack(c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, c)
}

func (s *Server) accept(conn *net.UnixConn) (*Call, error) {
	if err := checkPeer(conn); err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(requestLimit)); err != nil {
		return nil, err
	}
	files, r := newFileReader(conn)
	var payload bytes.Buffer
	k, err := readFrame(r, &payload)
	if err == nil && k != kindRequest && k != kindDeep {
		err = fmt.Errorf("frame of kind %q instead of a request: %w", k, errs.Invalid)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	var verb string
	var body []byte
	if err == nil {
		verb, body, err = splitRequest(payload.Bytes())
	}
	if err != nil {
		closeAll(files.files)
		return nil, err
	}
	call := &Call{Verb: verb, body: body, files: files.files, conn: conn}
	if k == kindDeep {
		call.log = new(stage.Log)
	}
	return call, nil
}

// checkPeer refuses peers of other users, should the socket's mode ever be
// widened by hand.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("peer has user id %d: %w", cred.Uid, errs.Denied)
	}
	return nil
}

package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/session"
)

// remoteCommand serves exec and attach.
func (s *Server) remoteCommand(w http.ResponseWriter, r *http.Request, request Request) {
	c := command{s.rt, request}
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		c.serveV5(w, r, s.o.IdleTimeout)
		return
	}
	o := &remotecommand.Options{Stdin: request.Stdin, Stdout: request.Stdout, Stderr: request.Stderr, TTY: request.TTY}
	if request.Verb == Attach {
		remotecommand.ServeAttach(w, r, c, "", "", request.ID, o, s.o.IdleTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
		return
	}
	remotecommand.ServeExec(w, r, c, "", "", request.ID, request.Cmd, o, s.o.IdleTimeout, remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

// command is the session as k8s.io/cri-streaming knows it.
type command struct {
	rt Runtime
	r  Request
}

// ExecInContainer implements remotecommand.Executor.
func (c command) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, errOut io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	exit, err := c.run(ctx, in, out, errOut, resize)
	if err == nil && exit != 0 {
		err = utilexec.CodeExitError{Err: fmt.Errorf("exit status %d", exit), Code: int(exit)}
	}
	return err
}

// AttachContainer implements remotecommand.Attacher.
func (c command) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errOut io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	_, err := c.run(ctx, in, out, errOut, resize)
	return err
}

// run has the session with those streams that the request asks for. A library's
// stream that was not asked for may be there all the same.
func (c command) run(ctx context.Context, in io.Reader, out, errOut io.WriteCloser, resize <-chan remotecommand.TerminalSize) (int32, error) {
	st := session.Streams{Terminal: c.r.TTY}
	if c.r.Stdin {
		st.Stdin = in
	}
	if c.r.Stdout {
		st.Stdout = out
	}
	if c.r.Stderr && !c.r.TTY {
		st.Stderr = errOut
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if resize != nil {
		st.Sizes = convert(ctx, resize)
	}
	if conn, ok := ctx.Value(connKey{}).(*conn); ok && (st.Stdout != nil || st.Stderr != nil) {
		on := st.Stdout
		if on == nil {
			on = st.Stderr
		}
		go conn.knock(ctx, on)
	}
	exit, err := int32(0), error(nil)
	if c.r.Verb == Attach {
		err = c.rt.Attach(ctx, c.r.ID, st)
	} else {
		exit, err = c.rt.Exec(ctx, c.r.ID, c.r.Cmd, st)
	}
	switch cause := context.Cause(ctx); {
	case err == nil || cause == nil:
		return exit, err
	case errors.Is(cause, errStopping):
		return 0, errStopping
	}
	return 0, nil // the client has gone: there is nobody to tell
}

// errStopping is what clients hear when the daemon ends.
var errStopping = fmt.Errorf("berthd is stopping: %w", errs.Unavailable)

// convert passes sizes on until ctx ends.
func convert(ctx context.Context, from <-chan remotecommand.TerminalSize) <-chan session.Size {
	to := make(chan session.Size)
	go func() {
		defer close(to)
		for {
			select {
			case s, ok := <-from:
				if !ok {
					return
				}
				select {
				case to <- session.Size{Width: s.Width, Height: s.Height}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return to
}

// The channels of a WebSocket, by number.
const (
	channelStdin = iota
	channelStdout
	channelStderr
	channelError
	channelResize
)

// serveV5 is like the library's v4, but for its clients' word that a channel ends.
func (c command) serveV5(w http.ResponseWriter, r *http.Request, idle time.Duration) {
	may := func(asked bool, t wsstream.ChannelType) wsstream.ChannelType {
		if asked {
			return t
		}
		return wsstream.IgnoreChannel
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {Binary: true, Channels: []wsstream.ChannelType{
		channelStdin: may(c.r.Stdin, wsstream.ReadChannel), channelStdout: may(c.r.Stdout, wsstream.WriteChannel), channelStderr: may(c.r.Stderr, wsstream.WriteChannel),
		channelError: wsstream.WriteChannel, channelResize: wsstream.ReadChannel,
	}}})
	conn.SetIdleTimeout(idle)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		klog.FromContext(r.Context()).V(2).Info("Session did not begin", "verb", c.r.Verb, "id", c.r.ID, "err", err)
		return
	}
	defer conn.Close()
	_, _ = streams[channelError].Write(nil) // tells that the session has begun
	resize := make(chan remotecommand.TerminalSize)
	go readSizes(r.Context(), streams[channelResize], resize)
	exit, err := c.run(r.Context(), streams[channelStdin], streams[channelStdout], streams[channelStderr], resize)
	text, _ := json.Marshal(statusOf(exit, err)) // strings and numbers
	if _, err := streams[channelError].Write(text); err != nil {
		klog.FromContext(r.Context()).V(4).Info("Client has gone before the end of its session", "verb", c.r.Verb, "id", c.r.ID, "err", err)
	}
}

func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	defer close(to)
	for d := json.NewDecoder(from); ; {
		var size remotecommand.TerminalSize
		if d.Decode(&size) != nil {
			return
		}
		select {
		case to <- size:
		case <-ctx.Done():
			return
		}
	}
}

// status is Kubernetes' meta/v1 Status.
type status struct {
	Status  string   `json:"status"`
	Message string   `json:"message,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Details *details `json:"details,omitempty"`
	Code    int      `json:"code,omitempty"`
}

type details struct {
	Causes []cause `json:"causes"`
}

type cause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func statusOf(exit int32, err error) status {
	switch {
	case err != nil:
		return status{Status: "Failure", Reason: "InternalError", Message: "Internal error occurred: " + err.Error(), Code: http.StatusInternalServerError}
	case exit != 0:
		return status{
			Status: "Failure", Reason: remotecommand.NonZeroExitCodeReason, Message: fmt.Sprintf("command terminated with non-zero exit code: exit status %d", exit),
			Details: &details{[]cause{{remotecommand.ExitCodeCauseType, strconv.Itoa(int(exit))}}},
		}
	}
	return status{Status: "Success"}
}

package stream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/berth-run/berth/pkg/errs"
)

// tunnelProtocol is SPDY in the messages of a WebSocket, as kubectl has it.
const tunnelProtocol = "SPDY/3.1+" + portforward.ProtocolV1Name

func (s *Server) portForward(w http.ResponseWriter, r *http.Request, request Request) {
	f := forwarder{ctx: r.Context(), rt: s.rt, id: request.ID}
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		websocket.Server{Handshake: chooseTunnel, Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			s.serveForward(&tunnel{ws: ws, header: http.Header{}}, inTunnel(r), f, request)
		}}.ServeHTTP(w, r)
		return
	}
	s.serveForward(w, r, f, request)
}

func (s *Server) serveForward(w http.ResponseWriter, r *http.Request, f forwarder, request Request) {
	portforward.ServePortForward(w, r, f, request.ID, "", &portforward.V4Options{Ports: request.Ports},
		s.o.IdleTimeout, remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
}

// forwarder is one session. The library's context does not end with the client.
type forwarder struct {
	ctx context.Context
	rt  Runtime
	id  string
}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("port %d: %w", port, errs.Invalid)
	}
	return f.rt.Forward(f.ctx, f.id, uint16(port), stream)
}

func chooseTunnel(c *websocket.Config, _ *http.Request) error {
	for _, p := range c.Protocol {
		if p == tunnelProtocol {
			c.Protocol = []string{p}
			return nil
		}
	}
	return fmt.Errorf("protocols %v: %w", c.Protocol, errs.Unsupported)
}

// inTunnel is the request as it would be without the WebSocket around it.
func inTunnel(r *http.Request) *http.Request {
	inner := r.Clone(r.Context())
	inner.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {portforward.ProtocolV1Name},
	}
	return inner
}

// tunnel is a response whose connection is a WebSocket, which has been upgraded
// already: what the library says about that is said.
type tunnel struct {
	ws     *websocket.Conn
	header http.Header
}

// Header implements http.ResponseWriter.
func (t *tunnel) Header() http.Header { return t.header }

// Write implements http.ResponseWriter.
func (t *tunnel) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (t *tunnel) WriteHeader(int) {}

// Hijack implements http.Hijacker.
func (t *tunnel) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.ws, bufio.NewReadWriter(bufio.NewReader(t.ws), bufio.NewWriter(t.ws)), nil
}

package stream

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	spdytransport "k8s.io/client-go/transport/spdy"
)

// forward begins to forward a port with a dialer and returns the local end's address.
func forward(t *testing.T, to, ports string, overWebSocket bool) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdytransport.RoundTripperFor(&rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	dialer := spdytransport.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u)
	if overWebSocket {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{}); err != nil {
			t.Fatal(err)
		}
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.New(dialer, []string{ports}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	local, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", local[0].Local)
}

func TestPortForwardCarriesBytesAndTheirEnd(t *testing.T) {
	s := start(t, Options{}, &fake{})
	for name, overWebSocket := range map[string]bool{"SPDY": false, "WebSocket": true} {
		t.Run(name, func(t *testing.T) {
			address := forward(t, s.ask(t, Request{Verb: PortForward, ID: "p"}), ":80", overWebSocket)
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					c, err := net.Dial("tcp", address)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					in := bytes.Repeat([]byte("x"), 1<<20)
					go func() { _, _ = c.Write(in); _ = c.(*net.TCPConn).CloseWrite() }()
					if got, err := io.ReadAll(c); err != nil || string(got) != "80:"+string(in) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				})
			}
			all.Wait()
		})
	}
}

// Clients of the first WebSockets have no words for ports: those are the request's.
func TestPortForwardThroughAPlainWebSocketHasTheRequestsPorts(t *testing.T) {
	s := start(t, Options{}, &fake{})
	to := s.ask(t, Request{Verb: PortForward, ID: "p", Ports: []int32{80, 1}})
	c, err := websocket.NewConfig(strings.Replace(to, "http", "ws", 1), "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	c.Protocol = []string{"v4.channel.k8s.io"}
	conn, err := websocket.DialConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := websocket.Message.Send(conn, []byte("\x00hello")); err != nil {
		t.Fatal(err)
	}
	// Two channels a port: its data and its error. Both begin with the port.
	want := map[byte]string{0: "\x50\x0080:hello", 1: "\x50\x00", 2: "\x01\x00", 3: "\x01\x00"}
	got := map[byte]string{}
	for !maps.Equal(got, want) {
		var m []byte
		if err := websocket.Message.Receive(conn, &m); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		if len(m) == 0 {
			continue
		}
		if m[0] == 3 && len(got[3]) == 2 {
			if !strings.Contains(string(m), "nobody listens") {
				t.Errorf("the error of port 1: %q", m)
			}
			continue
		}
		got[m[0]] += string(m[1:])
	}
}

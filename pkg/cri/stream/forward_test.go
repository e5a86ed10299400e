package stream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"

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

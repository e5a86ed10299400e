package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/berth-run/berth/pkg/cri"
	"github.com/berth-run/berth/pkg/cri/stream"
	"github.com/berth-run/berth/pkg/errs"
)

// certificate writes one that is good for 127.0.0.1 and ::1, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	own := s.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: own.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestSessionsAreServedWhereTheConfigurationSays(t *testing.T) {
	c := testConfig(t)
	c.Stream.Address = "127.0.0.2"
	c.Stream.CertFile, c.Stream.KeyFile = certificate(t)
	s := &services{o: Options{Config: c}, criStreams: &cri.Streams{Sessions: &cri.Sessions{}}}
	var running sync.WaitGroup
	s.openStreams(t.Context(), &running)
	if s.streams == nil {
		_, err := s.criStreams.URL(stream.Request{})
		t.Fatal(err)
	}
	defer running.Wait()
	defer s.streams.Close()
	to, err := s.criStreams.URL(stream.Request{Verb: stream.PortForward, ID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if u, err := url.Parse(to); err != nil || u.Scheme != "https" || u.Hostname() != "127.0.0.2" {
		t.Errorf("%s, %v", to, err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(to)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest { // a session, but no upgrade
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestWhereSessionsCannotBeServedTheirCallsSayWhy(t *testing.T) {
	c := testConfig(t)
	c.Stream.CertFile, c.Stream.KeyFile = "/none/crt", "/none/key"
	s := &services{o: Options{Config: c}, criStreams: &cri.Streams{Sessions: &cri.Sessions{}}}
	s.openStreams(t.Context(), new(sync.WaitGroup))
	if _, err := s.criStreams.URL(stream.Request{Verb: stream.PortForward, ID: "p"}); !errors.Is(err, errs.Unavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
)

// certificate writes one that signs itself, and its key.
func certificate(t *testing.T, f TLSFiles, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{f.Certificate: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serial is that of the certificate that the server shows now.
func (s *Server) serial(t *testing.T) int64 {
	t.Helper()
	c, err := tls.Dial("tcp", s.base.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestCertificatesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	f := TLSFiles{Certificate: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key")}
	if _, err := Listen(Options{Address: "127.0.0.1:0", TLS: f}, &fake{}); err == nil {
		t.Error("it serves without a certificate")
	}
	certificate(t, f, 1)
	s := start(t, Options{TLS: f}, &fake{})
	if n := s.serial(t); n != 1 {
		t.Errorf("certificate %d", n)
	}
	certificate(t, f, 2)
	if n := s.serial(t); n != 2 {
		t.Errorf("certificate %d after a new one", n)
	}
	if err := os.WriteFile(f.Certificate, []byte("half of"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := s.serial(t); n != 2 {
		t.Errorf("certificate %d after a damaged one", n)
	}
}

func TestSessionsOverTLSAskForAClientsCertificate(t *testing.T) {
	dir := t.TempDir()
	f := TLSFiles{Certificate: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "crt")}
	certificate(t, f, 1)
	s := start(t, Options{TLS: f}, &fake{})
	for name, open := range transports {
		if name == "WebSocket v4" {
			continue // has no end of input
		}
		run := func(c rest.TLSClientConfig) (string, error) {
			var out strings.Builder
			e, err := open(&rest.Config{TLSClientConfig: c}, s.ask(t, Request{Verb: Exec, ID: "c", Stdin: true, Stdout: true}))
			if err == nil {
				err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
			}
			return out.String(), err
		}
		if out, err := run(rest.TLSClientConfig{CAFile: f.Certificate}); err == nil {
			t.Errorf("%s without a certificate: %q", name, out)
		}
		if out, err := run(rest.TLSClientConfig{CAFile: f.Certificate, CertFile: f.Certificate, KeyFile: f.Key}); err != nil || out != "hello" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry"
	testregistry "github.com/berth-run/berth/test/registry"
)

// encrypted serves a registry with TLS, and returns its host.
func encrypted(t testing.TB, r *testregistry.Registry, want *tls.Config) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(r)
	s.TLS = want
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// clientPair is a self-signed client certificate and its key.
func clientPair(t testing.TB) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pemOf("CERTIFICATE", der))) {
		t.Fatal("not a certificate")
	}
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", private), pool
}

func TestServersAreVerifiedByTheAuthoritiesOfTheirFiles(t *testing.T) {
	b := built(t)
	r := &testregistry.Registry{}
	r.Add("team/app", "v1", b)
	s := encrypted(t, r, nil)
	host := strings.TrimPrefix(s.URL, "https://")
	ca := pemOf("CERTIFICATE", s.Certificate().Raw)
	for _, c := range []struct {
		name string
		fill func(n node)
		ok   bool
	}{
		{"unknown", func(n node) { n.write("certs.d/"+host+"/hosts.toml", "server = \"https://"+host+"\"\n") }, false},
		{"skip_verify", func(n node) {
			n.write("certs.d/"+host+"/hosts.toml", "server = \"https://"+host+"\"\nskip_verify = true\n")
		}, true},
		{"ca", func(n node) {
			n.write("certs.d/"+host+"/hosts.toml", "server = \"https://"+host+"\"\nca = \"ca.pem\"\n")
			n.write("certs.d/"+host+"/ca.pem", ca)
		}, true},
		{"a directory of certificates", func(n node) { n.write("certs.d/"+host+"/ca.crt", ca) }, true},
		{"loopback", func(node) {}, true},
		{"insecure", func(n node) { n.write("registries.conf", "[[registry]]\nlocation = \""+host+"\"\ninsecure = true\n") }, true},
		{"another authority", func(n node) {
			other, _, _ := clientPair(n.t)
			n.write("certs.d/"+host+"/ca.crt", other)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			c.fill(n)
			if _, err := n.pull(host+"/team/app:v1", registry.Auth{}); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAMirrorThatMayBeInsecureIsAskedWithoutTLSToo(t *testing.T) {
	b := built(t)
	mirror := serve(t, nil)
	mirror.Put("team/app", "v1", b)
	n := newNode(t)
	n.write("registries.conf", "[[registry]]\nprefix = \"registry.invalid\"\nlocation = \""+mirror.Host+"\"\ninsecure = true\n")
	if _, err := n.pull("registry.invalid/team/app:v1", registry.Auth{}); err != nil {
		t.Error(err)
	}
}

func TestClientCertificatesAreShown(t *testing.T) {
	b := built(t)
	r := &testregistry.Registry{}
	r.Add("team/app", "v1", b)
	cert, key, pool := clientPair(t)
	s := encrypted(t, r, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	host := strings.TrimPrefix(s.URL, "https://")
	ref := host + "/team/app:v1"
	n := newNode(t)
	n.write("certs.d/"+host+"/ca.crt", pemOf("CERTIFICATE", s.Certificate().Raw))
	if _, err := n.pull(ref, registry.Auth{}); err == nil {
		t.Error("it was not demanded")
	}
	n.write("certs.d/"+host+"/client.cert", cert)
	n.write("certs.d/"+host+"/client.key", key)
	if _, err := n.pull(ref, registry.Auth{}); err != nil {
		t.Errorf("in two files: %v", err)
	}
	n.write("certs.d/"+host+"/hosts.toml", "ca = \"ca.crt\"\nclient = \"both.pem\"\n")
	n.write("certs.d/"+host+"/both.pem", cert+key)
	if _, err := n.pull(ref, registry.Auth{}); err != nil {
		t.Errorf("in one file: %v", err)
	}
}

func TestACertificateThatChangesCountsForTheNextPull(t *testing.T) {
	b := built(t)
	r := &testregistry.Registry{}
	r.Add("team/app", "v1", b)
	s := encrypted(t, r, nil)
	host := strings.TrimPrefix(s.URL, "https://")
	n := newNode(t)
	wrong, _, _ := clientPair(t)
	n.write("certs.d/"+host+"/ca.crt", wrong)
	client := registry.New(n.options())
	defer client.Close()
	ask := func() error {
		name, err := reference.Parse(host + "/team/app:v1")
		if err != nil {
			return err
		}
		repository, err := client.Repository(name, registry.Auth{})
		if err != nil {
			return err
		}
		_, _, err = repository.Manifest(t.Context(), "v1", 1<<20)
		return err
	}
	if ask() == nil {
		t.Error("the wrong authority was taken")
	}
	n.write("certs.d/"+host+"/ca.crt", pemOf("CERTIFICATE", s.Certificate().Raw))
	if err := ask(); err != nil {
		t.Error(err)
	}
	n.write("certs.d/"+host+"/ca.crt", "no certificate")
	if err := ask(); err == nil || !strings.Contains(err.Error(), filepath.Join(n.root, "certs.d", host, "ca.crt")) {
		t.Errorf("a bad file: %v", err)
	}
}

func TestProxiesAreUsed(t *testing.T) {
	b := built(t)
	upstream := serve(t, nil)
	upstream.Put("team/app", "v1", b)
	var through, straight atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		through.Add(1)
		if r.URL.Host != "registry.invalid" && r.URL.Host != "other.invalid" {
			straight.Add(1)
		}
		upstream.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	n := newNode(t)
	o := n.options()
	o.Hosts.PlainHTTP = []string{"registry.invalid", "other.invalid"}
	o.Proxy = &httpproxy.Config{HTTPProxy: proxy.URL, NoProxy: "other.invalid"}
	client := registry.New(o)
	defer client.Close()
	for host, ok := range map[string]bool{"registry.invalid": true, "other.invalid": false} {
		r, err := client.Repository(reference.Name{Domain: host, Path: "team/app", Tag: "v1"}, registry.Auth{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Manifest(t.Context(), "v1", 1<<20); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
	if through.Load() == 0 || straight.Load() > 0 {
		t.Errorf("%d requests came through the proxy, %d of them wrong", through.Load(), straight.Load())
	}
	if s := fmt.Sprint(client.Hosts().Check()); s != "<nil>" {
		t.Error(s)
	}
}

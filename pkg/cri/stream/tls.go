package stream

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
)

// TLSFiles are PEM files. They are read again after they have changed.
type TLSFiles struct {
	Certificate, Key string
	// ClientCA, where set, signs the certificates that clients must have.
	ClientCA string
}

// config returns one whose connections get what the files say then.
func (f TLSFiles) config() (*tls.Config, error) {
	k := &keeper{files: f}
	if _, err := k.current(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.current() }}, nil
}

// keeper holds what was read last.
type keeper struct {
	files TLSFiles

	mu     sync.Mutex
	stamps [3]stamp // of the files as they were last tried
	config *tls.Config
}

type stamp struct {
	size     int64
	modified time.Time
	missing  bool
}

// current reads the files where they have changed. Ones that cannot be used, such
// as a certificate whose key is still to come, leave the old ones in force.
func (k *keeper) current() (*tls.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var now [3]stamp
	for i, path := range []string{k.files.Certificate, k.files.Key, k.files.ClientCA} {
		info, err := os.Stat(path)
		now[i] = stamp{missing: true}
		if err == nil {
			now[i] = stamp{size: info.Size(), modified: info.ModTime()}
		}
	}
	if k.config != nil && now == k.stamps {
		return k.config, nil
	}
	k.stamps = now
	c, err := k.files.read()
	switch {
	case err == nil:
		k.config = c
	case k.config == nil:
		return nil, err
	default:
		klog.Background().Error(err, "Streaming goes on with the certificate that it has")
	}
	return k.config, nil
}

func (f TLSFiles) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair}}
	if f.ClientCA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, err
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate: %w", f.ClientCA, errs.Invalid)
	}
	return c, nil
}

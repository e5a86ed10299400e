package hosts

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/berth-run/berth/pkg/errs"
)

// TLS is how a server proves itself and how it is proved to. The zero value
// trusts the system's authorities.
type TLS struct {
	SkipVerify *bool
	CA         []string // files of authorities, beside the system's
	Clients    []KeyPair
}

// KeyPair is a client certificate. An empty Key means that Cert holds it too.
type KeyPair struct{ Cert, Key string }

func (t TLS) set() bool { return t.SkipVerify != nil || len(t.CA) > 0 || len(t.Clients) > 0 }

// files are all that Config reads.
func (t TLS) files() []string {
	list := append([]string(nil), t.CA...)
	for _, p := range t.Clients {
		list = append(list, p.Cert)
		if p.Key != "" {
			list = append(list, p.Key)
		}
	}
	return list
}

// Key tells configurations apart: equal keys give equal results of Config as long
// as none of the files has changed since, and a changed file changes the key.
func (t TLS) Key() string {
	return fmt.Sprint(t.SkipVerify != nil && *t.SkipVerify, t.CA, t.Clients, stampOf(t.files()))
}

// Config reads the files. Its errors name them and none of their content.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.SkipVerify != nil {
		c.InsecureSkipVerify = *t.SkipVerify
	}
	for _, path := range t.CA {
		data, err := read(path)
		if err != nil {
			return nil, fmt.Errorf("read certificate authority: %w", err)
		}
		if c.RootCAs == nil {
			if c.RootCAs, err = x509.SystemCertPool(); err != nil {
				return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
			}
		}
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s: no certificate in PEM is in it: %w", path, errs.Invalid)
		}
	}
	for _, pair := range t.Clients {
		cert, err := read(pair.Cert)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		key := cert
		if pair.Key != "" {
			if key, err = read(pair.Key); err != nil {
				return nil, fmt.Errorf("read key of client certificate: %w", err)
			}
		}
		loaded, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", pair.Cert, err, errs.Invalid)
		}
		c.Certificates = append(c.Certificates, loaded)
	}
	return c, nil
}

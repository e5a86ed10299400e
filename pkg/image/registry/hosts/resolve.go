package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// Endpoints returns the servers to ask for a name, in the order of asking: mirrors
// first. The error is of kind Denied for what registries.conf blocks, and of kind
// Invalid with file and line where the files do not say where the name is.
func (f *Files) Endpoints(n reference.Name) ([]Endpoint, error) {
	t := f.load()
	if t.fault != nil {
		return nil, fmt.Errorf("registry configuration: %w", t.fault)
	}
	r, matched := t.match(full(n))
	switch {
	case r.fault != nil:
		return nil, fmt.Errorf("registry configuration: %w", r.fault)
	case r.blocked:
		return nil, fmt.Errorf("registry %s is blocked by %s: %w", r.prefix, r.file, errs.Denied)
	}
	d, err := f.find(n.Domain)
	if err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	if matched && (!d.decides || d.fallback) {
		return f.ofRegistry(r, n)
	}
	return f.ofDirectory(d, n), nil
}

// ofDirectory are the endpoints that a hosts.toml names.
func (f *Files) ofDirectory(d directory, n reference.Name) []Endpoint {
	var list []Endpoint
	for i, s := range d.servers {
		if s.host == "" {
			list = append(list, f.direct(address(n.Domain), s)...)
			continue
		}
		e := s.endpoint()
		if i == len(d.servers)-1 && !d.fallback {
			e.Registry = n.Domain // the file says so
		}
		_, port, _ := net.SplitHostPort(e.Host)
		if e.Scheme == "http" && e.TLS.set() && port != "80" {
			list = append(list, withPlain(e)...) // as containerd has it
		} else {
			list = append(list, e)
		}
	}
	for i := range list {
		list[i].Repository = n.Path
		if serves(list[i].Host, n.Domain) {
			list[i].Registry = n.Domain
		} else {
			list[i].Namespace = n.Domain
		}
	}
	return list
}

func (s server) endpoint() Endpoint {
	return Endpoint{
		Scheme: s.scheme, Host: s.host, Root: s.root, Can: s.can, TLS: s.tls, Header: s.header, DialTimeout: s.dialTimeout, Source: s.file,
	}
}

// ofRegistry are the endpoints that a [[registry]] names.
func (f *Files) ofRegistry(r registry, n reference.Name) ([]Endpoint, error) {
	var list []Endpoint
	for _, p := range r.mirrors {
		digested := n.Digest != ""
		if !digested && (r.byDigest || p.from == "digest-only") || digested && p.from == "tag-only" {
			continue
		}
		more, err := f.at(r, p, n)
		if err != nil {
			return nil, err
		}
		for i := range more {
			more[i].Can &^= Push // only the registry itself is pushed to
		}
		list = append(list, more...)
	}
	more, err := f.at(r, r.itself, n)
	return append(list, more...), err
}

// at are the endpoints of a name at one place: two where TLS is not demanded.
func (f *Files) at(r registry, p spot, n reference.Name) ([]Endpoint, error) {
	moved, err := r.rewrite(n, p)
	if err != nil {
		return nil, err
	}
	s, err := f.spoken(moved.Domain)
	if err != nil {
		return nil, fmt.Errorf("registry configuration: %w", err)
	}
	list := f.direct(address(moved.Domain), s)
	if p.insecure && list[0].Scheme == "https" {
		skip := true
		list[0].TLS.SkipVerify = &skip
		list = withPlain(list[0])
	}
	for i := range list {
		list[i].Repository, list[i].Namespace, list[i].Source = moved.Path, p.namespace, r.file
		if moved.Domain == n.Domain {
			list[i].Registry = n.Domain
		}
	}
	return list, nil
}

// spoken is how certs.d says that a host itself is spoken to.
func (f *Files) spoken(host string) (server, error) {
	d, err := f.find(host)
	if err != nil {
		return server{}, err
	}
	for _, s := range d.servers {
		if s.host == address(host) || s.host == "" && !d.fallback {
			return s, nil
		}
	}
	if !d.decides {
		return d.servers[len(d.servers)-1], nil
	}
	return server{}, nil
}

// CredentialHelpers are the credential-helpers of registries.conf, nil where it
// has none.
func (f *Files) CredentialHelpers() []string { return f.load().helpers }

// Check reads all files and returns what is wrong with them.
func (f *Files) Check() error {
	t := f.load()
	failed := []error{t.fault}
	for _, r := range t.registries {
		failed = append(failed, r.fault)
	}
	for _, root := range f.options.CertsDirs {
		list, err := os.ReadDir(root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
		for _, e := range list[:min(len(list), maxFiles)] {
			dir := filepath.Join(root, e.Name())
			if i, err := os.Stat(dir); err != nil || !i.IsDir() {
				continue
			}
			d, err := readDirectory(dir, false)
			failed = append(failed, err)
			for _, s := range d.servers {
				_, err := s.tls.Config()
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

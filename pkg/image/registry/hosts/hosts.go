// Package hosts knows which servers are asked for an image. It reads what a node
// has for containerd, hosts.toml and certificates below certs.d directories, and
// what it has for CRI-O, registries.conf with its drop-ins, and makes one list
// of them:
//
//	reference ─▶ short name? aliases, search registries ─▶ names
//	name ─▶ mirrors, then the registry itself ─▶ Endpoints
//
// Both kinds may speak of one registry. Then the order is:
//
//  1. What registries.conf blocks is blocked.
//  2. A hosts.toml in the registry's own directory says all endpoints.
//  3. Else the [[registry]] of registries.conf with the longest prefix does.
//  4. Else the _default directory of certs.d does, if there is one.
//  5. Else the registry itself is asked.
//
// Certificates in a directory of a host, and what its hosts.toml says of that
// host itself, are used for every endpoint on it, whichever file named it.
//
// A file that cannot be read or understood is an error, with file and line, of
// the names that it is about: hosts.toml of its registry, a bad [[registry]] of
// what begins with its prefix, a registries.conf with a bad syntax of everything,
// since it may block anything. Unknown keys are ignored, as by those whose files
// they are.
//
// The package asks nobody and holds no secrets but headers, which it does not
// print. Files that have changed are read again by the next call; mu serialises
// that, readers of what is known use an immutable table.
package hosts

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth/pkg/image/reference"
)

// Options says where the files are. The zero value reads none.
type Options struct {
	// CertsDirs hold a directory for each host. The first that has one counts.
	CertsDirs []string
	// RegistriesConf are the paths of registries.conf, of which the first that
	// exists is read. Drop-ins are in PATH.d of each; of those with one name the
	// first counts.
	RegistriesConf []string
	// PlainHTTP names hosts, with ports, to speak plain HTTP to where no file says
	// how.
	PlainHTTP []string
}

// Files is the configuration as the files have it. Its methods are safe for
// concurrent use.
type Files struct {
	options Options

	mu    sync.Mutex
	stamp string // of what table was read from
	table atomic.Pointer[table]
}

// New returns the configuration below the paths of o. It reads nothing yet.
func New(o Options) *Files { return &Files{options: o} }

// Capability is what a server may be asked for.
type Capability uint8

// The capabilities of hosts.toml.
const (
	Pull      Capability = 1 << iota // manifests by digest, and blobs
	Resolve                          // tags
	Push                             // uploads
	Referrers                        // what refers to a manifest
	all       = Pull | Resolve | Push | Referrers
)

// Endpoint is one server that may have a repository.
type Endpoint struct {
	Scheme     string // https or http
	Host       string // with its port, if it has one
	Root       string // of the API: /v2, or what override_path says; no slash at its end
	Repository string // as this server names it
	// Namespace is told to the server as the query ns, "" for not: one that stands
	// for several registries needs it.
	Namespace   string
	Can         Capability
	TLS         TLS
	Header      http.Header // sent to this server alone; may hold secrets
	DialTimeout time.Duration
	// Registry is the registry that the server is, "" for a mirror: what a request
	// brings for that registry is for this server.
	Registry string
	// Fallback says that the server is that of the endpoint before in another
	// protocol: to be asked only where it did not speak the first.
	Fallback bool
	// Source is the file that names the endpoint, "" for none.
	Source string
}

// String is where the endpoint is, without what may be secret.
func (e Endpoint) String() string { return e.Scheme + "://" + e.Host + e.Root + "/" + e.Repository }

// GoString is String, for headers may hold secrets.
func (e Endpoint) GoString() string { return e.String() }

// MarshalLog is String, for headers may hold secrets.
func (e Endpoint) MarshalLog() any { return e.String() }

const dockerHub = "docker.io"

// address is the host that serves the registry of a name.
func address(domain string) string {
	if domain == dockerHub {
		return "registry-1.docker.io"
	}
	return domain
}

// serves reports whether host is where the registry domain itself answers.
func serves(host, domain string) bool { return host == address(domain) || host == domain }

// direct are the endpoints of a host of which no file says how it is spoken to.
func (f *Files) direct(host string, h server) []Endpoint {
	e := Endpoint{
		Scheme: "https", Host: host, Root: "/v2", Can: all, TLS: h.tls, Header: h.header, DialTimeout: h.dialTimeout, Source: h.file,
	}
	_, port, _ := net.SplitHostPort(host)
	switch {
	case f.plain(host):
		e.Scheme = "http"
		return []Endpoint{e}
	case !loopback(host) || port == "443":
		return []Endpoint{e}
	case port == "80":
		e.Scheme = "http"
		return []Endpoint{e}
	}
	if e.TLS.SkipVerify == nil && len(e.TLS.CA) == 0 {
		e.TLS.SkipVerify = new(bool)
		*e.TLS.SkipVerify = true
	}
	return withPlain(e)
}

// withPlain is an endpoint that may not speak TLS.
func withPlain(e Endpoint) []Endpoint {
	e.Scheme = "https"
	plain := e
	plain.Scheme, plain.Fallback = "http", true
	return []Endpoint{e, plain}
}

func (f *Files) plain(host string) bool {
	for _, h := range f.options.PlainHTTP {
		if h == host {
			return true
		}
	}
	return false
}

// loopback reports whether host can only mean this machine.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Loopback reports whether the endpoint can only be on this machine.
func (e Endpoint) Loopback() bool { return loopback(e.Host) }

// full is a name as prefixes of registries.conf are compared with.
func full(n reference.Name) string {
	s := n.Repository()
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest.String()
	}
	return s
}

// Package registry speaks the distribution protocol: it resolves names, fetches
// manifests and blobs from the servers that package hosts knows for them, and
// uploads to the one of these that takes uploads, with the credentials of the
// request, or those that the node has.
//
// It keeps no state but connections, verifies nothing but what may decide which
// server is asked (package blob verifies content), and turns what goes wrong into
// kinds: Denied for credentials, NotFound for what is absent, Unavailable for a
// host that does not answer. Blobs come by package fetch.
//
// Who gets to see credentials: those of a request go to the registry that the name
// begins with, or to the one that they say they are for; those of the node's files
// to the host, or the path on it, that the file names; headers to the server whose
// table has them. None goes to a mirror for which no file has them, to another
// host, port or scheme that a server redirects to, or in plain HTTP to a token
// server on another host. None reaches an error or a log, even where a server
// sends it back.
package registry

import (
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/berth-run/berth/pkg/image/fetch"
	"github.com/berth-run/berth/pkg/image/registry/credentials"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

// Options configures a Client. The zero value works, and reads no files.
type Options struct {
	UserAgent string // default "berth"
	// StallTimeout is how long a body may bring less than StallRate bytes a second;
	// default one minute and 1 KiB.
	StallTimeout time.Duration
	StallRate    int64
	// MaxRetries bounds the attempts after the first, at a manifest and at each
	// part of a blob; default 3 and 5, negative for none. Where another server may
	// have the same, it is asked instead.
	MaxRetries int
	// UploadChunk is how many bytes one request uploads: what is lost at most where
	// a server keeps nothing of a request that fails. Default 16 MiB.
	UploadChunk int64
	// Memory and Connections are what the blobs of all clients may use; nil means
	// budgets of this client.
	Memory, Connections *fetch.Budget
	// Received counts the bytes of blobs; nil: nobody does.
	Received *atomic.Int64
	// Hosts says which servers are asked, and how.
	Hosts hosts.Options
	// AuthFiles have the credentials of requests that bring none.
	AuthFiles credentials.Files
	// Proxy is what stands between; nil means what the environment says.
	Proxy *httpproxy.Config
}

// Client fetches from registries. Its methods are safe for concurrent use.
type Client struct {
	options Options
	hosts   *hosts.Files
	fetcher *fetch.Fetcher
	proxy   func(*http.Request) (*url.URL, error)

	mu         sync.Mutex
	transports map[string]*http.Transport
}

// New returns a client. It opens no connection yet.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "berth"
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = time.Minute
	}
	if o.Received == nil {
		o.Received = new(atomic.Int64)
	}
	if o.UploadChunk == 0 {
		o.UploadChunk = 16 << 20
	}
	fetcher := fetch.New(fetch.Options{
		Memory: o.Memory, Connections: o.Connections, Retries: o.MaxRetries, StallTime: o.StallTimeout, StallRate: o.StallRate,
	})
	if o.MaxRetries == 0 {
		o.MaxRetries = 3
	}
	c := &Client{
		options: o, hosts: hosts.New(o.Hosts), fetcher: fetcher, proxy: http.ProxyFromEnvironment, transports: map[string]*http.Transport{},
	}
	if o.Proxy != nil {
		proxy := o.Proxy.ProxyFunc()
		c.proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	}
	return c
}

// Hosts is what the client knows of servers and short names.
func (c *Client) Hosts() *hosts.Files { return c.hosts }

// Close closes idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

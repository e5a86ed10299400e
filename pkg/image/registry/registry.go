// Package registry speaks the distribution protocol: it resolves names and
// fetches manifests and blobs, with the credentials of the request.
//
// It keeps no state but connections, verifies nothing but sizes that bound
// memory (package blob verifies content), and turns what goes wrong into kinds:
// Denied for credentials, NotFound for what is absent, Unavailable for a host
// that does not answer. Credentials go to the registry that they are for and
// to the token server that it names, never to the target of a redirect, never
// into an error and never into a log. Hosts on loopback are spoken to in plain
// HTTP. Blobs come by package fetch.
package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/fetch"
)

const dockerHub = "docker.io"

// Options configures a Client. The zero value works.
type Options struct {
	UserAgent string // default "berth"
	// StallTimeout is how long a body may bring less than StallRate bytes a second;
	// default one minute and 1 KiB.
	StallTimeout time.Duration
	StallRate    int64
	// MaxRetries bounds the attempts after the first, at a manifest and at each
	// part of a blob; default 3 and 5, negative for none.
	MaxRetries int
	// Memory and Connections are what the blobs of all clients may use; nil means
	// budgets of this client.
	Memory, Connections *fetch.Budget
	// PlainHTTP names hosts, with ports, to speak plain HTTP to beside those on
	// loopback.
	PlainHTTP []string
	TLS       *tls.Config
}

// Client fetches from registries. Its methods are safe for concurrent use.
type Client struct {
	options Options
	http    *http.Client
	blobs   *http.Client // tries nothing again
	fetcher *fetch.Fetcher
}

// New returns a client. It opens no connection yet.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "berth"
	}
	if o.StallTimeout == 0 {
		o.StallTimeout = time.Minute
	}
	blobs := fetch.Options{
		Memory: o.Memory, Connections: o.Connections, Retries: o.MaxRetries, StallTime: o.StallTimeout, StallRate: o.StallRate,
	}
	if o.MaxRetries == 0 {
		o.MaxRetries = 3
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       o.TLS,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   16,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // blobs are addressed as they are
		ForceAttemptHTTP2:     true,
	}
	policy := &retry.GenericPolicy{
		Retryable: retry.DefaultPredicate, Backoff: retry.DefaultBackoff,
		MinWait: 200 * time.Millisecond, MaxWait: 5 * time.Second, MaxRetry: max(o.MaxRetries, 0),
	}
	return &Client{
		options: o,
		http:    &http.Client{Transport: &retry.Transport{Base: transport, Policy: func() retry.Policy { return policy }}},
		blobs:   &http.Client{Transport: parallel(transport)},
		fetcher: fetch.New(blobs),
	}
}

// parallel returns a transport whose requests have a connection each: HTTP/2 would
// put all on one, which is as fast as the slowest hop lets one be.
func parallel(t *http.Transport) *http.Transport {
	t = t.Clone()
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.MaxIdleConnsPerHost = 32
	return t
}

// Close closes idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.blobs.CloseIdleConnections()
}

// Repository is one repository of a registry as one request sees it.
type Repository struct {
	remote  *remote.Repository
	places  []place // to fetch blobs from
	fetcher *fetch.Fetcher
	trust   trust
	name    string
	stall   time.Duration
}

// Repository returns the repository at path of the registry host, as
// "docker.io" and "library/busybox". The token that the registry grants lives as
// long as what is returned.
func (c *Client) Repository(host, path string, a Auth) (*Repository, error) {
	name := host + "/" + path
	ref := oras.Reference{Registry: host, Repository: path}
	if err := ref.Validate(); err != nil {
		return nil, fmt.Errorf("repository %.300q: %w: %w", name, err, errs.Invalid)
	}
	credential, err := a.credential(host)
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", name, err)
	}
	client := &auth.Client{
		Client:     c.http,
		Header:     http.Header{"User-Agent": {c.options.UserAgent}},
		Credential: auth.StaticCredential(host, credential),
		Cache:      auth.NewCache(),
	}
	if loopback(host) {
		client.BlockedRealmPrefixes = []netip.Prefix{} // its token server is on loopback too
	}
	blobs := *client
	blobs.Client = c.blobs
	return &Repository{
		name:    name,
		stall:   c.options.StallTimeout,
		places:  []place{{name: host, client: &blobs, direct: c.blobs, reference: ref, plain: c.plain(host)}},
		fetcher: c.fetcher,
		remote: &remote.Repository{
			Client: client, Reference: ref, PlainHTTP: c.plain(host), ManifestMediaTypes: manifestTypes(),
			HandleWarning: func(remote.Warning) {},
		},
	}, nil
}

func manifestTypes() []string {
	return []string{
		ispec.MediaTypeImageIndex, ispec.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	}
}

// plain reports whether host is spoken to in plain HTTP.
func (c *Client) plain(host string) bool {
	for _, h := range c.options.PlainHTTP {
		if h == host {
			return true
		}
	}
	return loopback(host) && c.options.TLS == nil
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

// Manifest fetches the manifest or index that a tag or digest names, at most
// limit bytes of it. Its bytes are verified against the digest in the descriptor
// that it returns, which is the one asked for where reference is one.
func (r *Repository) Manifest(ctx context.Context, reference string, limit int64) (ispec.Descriptor, []byte, error) {
	desc, data, err := r.manifest(ctx, reference, limit)
	if err != nil {
		return ispec.Descriptor{}, nil, fmt.Errorf("fetch manifest %s of %s: %w", reference, r.name, explain(ctx, err))
	}
	return desc, data, nil
}

func (r *Repository) manifest(ctx context.Context, reference string, limit int64) (ispec.Descriptor, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*r.stall)
	defer cancel()
	desc, body, err := r.remote.Manifests().FetchReference(ctx, reference)
	if err != nil {
		return desc, nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err != nil {
		return desc, nil, err
	}
	if int64(len(data)) > limit {
		return desc, nil, fmt.Errorf("more than %d bytes: %w", limit, errs.Invalid)
	}
	want := desc.Digest
	if d, err := digest.Parse(reference); err == nil {
		want = d
	}
	if err := want.Validate(); err != nil {
		return desc, nil, fmt.Errorf("%w: %w", err, errs.Invalid)
	}
	if got := want.Algorithm().FromBytes(data); got != want {
		return desc, nil, fmt.Errorf("its bytes have digest %s, not %s: %w", got, want, errs.Invalid)
	}
	desc.Digest, desc.Size = want, int64(len(data))
	return desc, data, nil
}

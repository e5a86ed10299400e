package registry

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

// maxTransports is more than the files of a node name. A change of a certificate
// makes another.
const maxTransports = 64

// transport returns the connections to servers that are spoken to as e is.
func (c *Client) transport(e hosts.Endpoint, alternative bool) (*http.Transport, error) {
	return c.shared(e, alternative, "", func(*http.Transport) {})
}

// parallel returns the connections for blobs: one for each request. HTTP/2 would put
// all on one, which is as fast as the slowest hop lets one be.
func (c *Client) parallel(e hosts.Endpoint, alternative bool) (*http.Transport, error) {
	return c.shared(e, alternative, "parallel", func(t *http.Transport) {
		t.ForceAttemptHTTP2 = false
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		t.MaxIdleConnsPerHost = 32
	})
}

// shared returns the transport of a kind, which adapt makes of one that is new.
func (c *Client) shared(e hosts.Endpoint, alternative bool, kind string, adapt func(*http.Transport)) (*http.Transport, error) {
	dial := e.DialTimeout
	switch {
	case dial > 0:
	case alternative:
		dial = 10 * time.Second
	default:
		dial = 20 * time.Second
	}
	key := fmt.Sprint(kind, dial, e.TLS.Key())
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.transports[key]; ok {
		return t, nil
	}
	config, err := e.TLS.Config()
	if err != nil {
		return nil, err
	}
	if len(c.transports) >= maxTransports {
		for k, t := range c.transports {
			t.CloseIdleConnections()
			delete(c.transports, k)
		}
	}
	t := &http.Transport{
		Proxy:                 c.proxy,
		DialContext:           (&net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   16,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // blobs are addressed as they are
		ForceAttemptHTTP2:     true,
	}
	adapt(t)
	c.transports[key] = t
	return t, nil
}

// retries returns what tries requests to base again. Where another server may have
// the same, or a twin of this one speaks another protocol, that is asked at once
// instead.
func (c *Client) retries(base http.RoundTripper, host string, alternative, twin bool) http.RoundTripper {
	if alternative || c.options.MaxRetries < 0 {
		return base
	}
	retryable := func(r *http.Response, err error) (bool, error) {
		if err != nil && twin && otherProtocol(err, host) {
			return false, err
		}
		return retry.DefaultPredicate(r, err)
	}
	policy := &retry.GenericPolicy{
		Retryable: retryable, Backoff: retry.DefaultBackoff,
		MinWait: 200 * time.Millisecond, MaxWait: 5 * time.Second, MaxRetry: c.options.MaxRetries,
	}
	return &retry.Transport{Base: base, Policy: func() retry.Policy { return policy }}
}

// guard is on each request's way to a server, or to where the server sends it. It
// adds the server's headers to what goes to the server itself, and notes what is
// secret in what goes out.
type guard struct {
	endpoint hosts.Endpoint
	secrets  *secrets
	base     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	own := r.URL.Scheme == g.endpoint.Scheme && r.URL.Host == g.endpoint.Host
	if !own && r.Response == nil && r.URL.Scheme != "https" && !g.sameHost(r) {
		// Not the target of a redirect, so it is the token server.
		return nil, fmt.Errorf("token server %s is on another host and without TLS: %w", r.URL.Host, errs.Denied)
	}
	if own && len(g.endpoint.Header) > 0 {
		r = r.Clone(r.Context())
		for name, values := range g.endpoint.Header {
			if _, taken := r.Header[name]; taken && name == "Authorization" {
				continue // what the server has asked for
			}
			r.Header[name] = values
		}
	}
	g.secrets.addHeader(r.Header)
	return g.base.RoundTrip(r)
}

func (g *guard) sameHost(r *http.Request) bool {
	host := g.endpoint.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.EqualFold(r.URL.Hostname(), strings.Trim(host, "[]"))
}

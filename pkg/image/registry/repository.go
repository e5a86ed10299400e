package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/fetch"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

// Repository is one repository as one request sees it, on all servers that may
// have it.
type Repository struct {
	name     string // as the user knows it
	secrets  *secrets
	fetcher  *fetch.Fetcher
	received *atomic.Int64
	trust    trust
	sources  atomic.Pointer[[]*Source] // in the order of asking
}

// Source is one server that may have a repository.
type Source struct {
	repository *Repository
	endpoint   hosts.Endpoint
	remote     *remote.Repository
	blobs      place
	client     *Client
}

// Repository returns the repository of a name, of whose tag or digest may depend
// which servers are asked. The tokens that registries grant live as long as what
// is returned.
func (c *Client) Repository(n reference.Name, a Auth) (*Repository, error) {
	r := &Repository{name: n.Repository(), secrets: &secrets{}, fetcher: c.fetcher, received: c.options.Received}
	r.secrets.add(a.secrets()...)
	if _, err := a.credential(); err != nil {
		return nil, fmt.Errorf("repository %s: %w", r.name, err)
	}
	endpoints, err := c.hosts.Endpoints(n)
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", r.name, err)
	}
	var sources []*Source
	for i, e := range endpoints {
		alternative := false // whether another server comes after it
		for _, later := range endpoints[i+1:] {
			alternative = alternative || !later.Fallback
		}
		twin := i < len(endpoints)-1 && endpoints[i+1].Fallback
		s, err := c.source(r, e, a, alternative, twin)
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", r.name, err)
		}
		sources = append(sources, s)
	}
	r.sources.Store(&sources)
	return r, nil
}

func (c *Client) source(r *Repository, e hosts.Endpoint, a Auth, alternative, twin bool) (*Source, error) {
	s := &Source{repository: r, endpoint: e, client: c}
	r.secrets.addEndpoint(e)
	ref := oras.Reference{Registry: e.Host, Repository: e.Repository}
	if err := ref.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", e, err, errs.Invalid)
	}
	transport, err := c.transport(e, alternative)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	parallel, err := c.parallel(e, alternative)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	client := &auth.Client{
		Client:     &http.Client{Transport: c.retries(&guard{endpoint: e, secrets: r.secrets, base: transport}, e.Host, alternative, twin)},
		Header:     http.Header{"User-Agent": {c.options.UserAgent}},
		Credential: c.credential(e, a, r.secrets),
		Cache:      auth.NewCache(),
	}
	if e.Loopback() {
		client.BlockedRealmPrefixes = []netip.Prefix{} // its token server is on loopback too
	}
	s.remote = &remote.Repository{
		Client: rooted{endpoint: e, client: client}, Reference: ref, PlainHTTP: e.Scheme == "http", ManifestMediaTypes: manifestTypes(),
		HandleWarning: func(remote.Warning) {},
	}
	blobs := *client // with the same tokens
	blobs.Client = &http.Client{Transport: &guard{endpoint: e, secrets: r.secrets, base: parallel}}
	s.blobs = place{
		name: e.Host, client: rooted{endpoint: e, client: &blobs}, located: &blobs, direct: &http.Client{Transport: parallel},
		reference: ref, plain: e.Scheme == "http", explain: r.explain,
	}
	return s, nil
}

// rooted sends requests to where a server has its API.
type rooted struct {
	endpoint hosts.Endpoint
	client   remote.Client
}

// Do implements remote.Client.
func (r rooted) Do(req *http.Request) (*http.Response, error) {
	if r.endpoint.Root == "/v2" && r.endpoint.Namespace == "" {
		return r.client.Do(req)
	}
	req = req.Clone(req.Context())
	req.URL.Path, req.URL.RawPath = r.endpoint.Root+strings.TrimPrefix(req.URL.Path, "/v2"), ""
	if r.endpoint.Namespace != "" {
		q := req.URL.Query()
		q.Set("ns", r.endpoint.Namespace)
		req.URL.RawQuery = q.Encode()
	}
	return r.client.Do(req)
}

func manifestTypes() []string {
	return []string{
		ispec.MediaTypeImageIndex, ispec.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	}
}

// Sources are the servers to fetch blobs from, in the order of asking: first the
// one that had the manifest.
func (r *Repository) Sources() []*Source {
	var list []*Source
	for _, s := range *r.sources.Load() {
		if s.endpoint.Can&hosts.Pull != 0 {
			list = append(list, s)
		}
	}
	return list
}

// Manifest fetches the manifest or index that a tag or digest names, at most
// limit bytes of it, from the first server that has it. Its bytes are verified
// against the digest in the descriptor that it returns, which is the one asked for
// where reference is one.
func (r *Repository) Manifest(ctx context.Context, reference string, limit int64) (ispec.Descriptor, []byte, error) {
	var desc ispec.Descriptor
	var data []byte
	can := hosts.Resolve
	if _, err := digest.Parse(reference); err == nil {
		can = hosts.Pull
	}
	var from *Source
	err := r.eachServer(ctx, can, func(s *Source) (err error) {
		from = s
		if s.endpoint.Can&hosts.Pull == 0 {
			desc, err = s.resolve(ctx, reference)
			return err
		}
		desc, data, err = s.manifest(ctx, reference, limit)
		return err
	})
	switch {
	case err != nil:
		return ispec.Descriptor{}, nil, fmt.Errorf("fetch manifest %s of %s: %w", reference, r.name, err)
	case data == nil: // from one that may say no more than what a tag means
		return r.Manifest(ctx, desc.Digest.String(), limit)
	}
	r.prefer(from)
	return desc, data, nil
}

// prefer puts the source that has answered before the others. Those before it did
// not have what was asked: they come last.
func (r *Repository) prefer(s *Source) {
	old := *r.sources.Load()
	for n := range old {
		if n > 0 && old[n] == s {
			next := append([]*Source{s}, old[n+1:]...)
			for _, failed := range old[:n] {
				if !s.endpoint.Fallback || failed.endpoint.Host != s.endpoint.Host { // it does not speak TLS
					next = append(next, failed)
				}
			}
			r.sources.Store(&next)
		}
	}
}

// eachServer asks the servers that can do something until one does it. The error
// tells what each said; its kind is the last one's, which is the registry itself.
func (r *Repository) eachServer(ctx context.Context, can hosts.Capability, ask func(*Source) error) error {
	var last error
	var said []string
	for _, s := range *r.sources.Load() {
		again := s.endpoint.Fallback && last != nil
		if s.endpoint.Can&can == 0 || again && !otherProtocol(last, s.endpoint.Host) {
			continue
		}
		if last != nil && !again {
			said = append(said, r.explain(ctx, last).Error())
		}
		err := ask(s)
		if err == nil {
			return nil
		}
		last = &serverError{host: s.endpoint.Host, err: err}
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		return fmt.Errorf("no server is configured that may be asked: %w", errs.Invalid)
	}
	last = r.explain(ctx, last)
	if len(said) == 0 {
		return last
	}
	return fmt.Errorf("%s; %w", strings.Join(said, "; "), last)
}

// explain makes an error fit to be shown.
func (r *Repository) explain(ctx context.Context, err error) error {
	return r.secrets.hidden(explain(ctx, err))
}

// otherProtocol reports whether a server did not speak TLS.
func otherProtocol(err error, host string) bool {
	var record tls.RecordHeaderError
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return true
	}
	_, port, _ := net.SplitHostPort(host)
	return port == "" && errors.Is(err, syscall.ECONNREFUSED)
}

// String is where the source is.
func (s *Source) String() string { return s.endpoint.String() }

func (s *Source) resolve(ctx context.Context, reference string) (ispec.Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.client.options.StallTimeout)
	defer cancel()
	return s.remote.Manifests().Resolve(ctx, reference)
}

func (s *Source) manifest(ctx context.Context, reference string, limit int64) (ispec.Descriptor, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*s.client.options.StallTimeout)
	defer cancel()
	desc, body, err := s.remote.Manifests().FetchReference(ctx, reference)
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
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) || !json.Valid(data) {
		return desc, nil, fmt.Errorf("what it answers is no manifest: %w", errs.Invalid)
	}
	desc.Digest, desc.Size = want, int64(len(data))
	return desc, data, nil
}

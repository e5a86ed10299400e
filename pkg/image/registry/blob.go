package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/fetch"
)

// maxAnswer bounds what is read of the body of an error.
const maxAnswer = 8 << 10

// Blob opens a blob from an offset in bytes on. What goes wrong with the hosts is
// told by Read. The caller verifies what it reads, and closes it.
func (r *Repository) Blob(ctx context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, error) {
	what := fmt.Sprintf("fetch blob %s of %s", d.Digest, r.name)
	if err := d.Digest.Validate(); err != nil || d.Size < 0 || offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("%.300s from %d of %d bytes: %w", what, offset, d.Size, errs.Invalid)
	}
	sources := r.trusted(d.Digest, r.servers(d.Digest))
	return &body{Reader: r.fetcher.Open(ctx, sources, d.Size, offset), repository: r, digest: d.Digest, what: what}, nil
}

// servers are those that may have a blob, in the order of asking.
func (r *Repository) servers(d digest.Digest) []fetch.Source {
	var all []fetch.Source
	for _, s := range r.Sources() {
		all = append(all, &server{place: s.blobs, digest: d})
	}
	return all
}

// place is where one server has a repository.
type place struct {
	name      string        // for people
	client    remote.Client // authenticates and follows redirects, and tries nothing again
	located   remote.Client // likewise, for what the server has given the URL of
	direct    *http.Client  // for where the server redirects to: without credentials
	reference oras.Reference
	plain     bool
	explain   func(context.Context, error) error // makes an error fit to be shown
}

// body is a blob on its way.
type body struct {
	*fetch.Reader
	repository *Repository
	digest     digest.Digest
	what       string
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.repository.received.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", b.what, err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.repository.trust.came(b.digest, b.Served())
	return b.Reader.Close()
}

// server has one blob, or knows where it is.
type server struct {
	place
	digest digest.Digest
	// moved is where the server redirects to, until that refuses.
	moved atomic.Pointer[url.URL]
}

// Host implements fetch.Source.
func (s *server) Host() string { return s.name }

// Range implements fetch.Source. The server is asked once for where the blob is,
// not for each range: that place is asked without credentials, for as long as it
// answers.
func (s *server) Range(ctx context.Context, first, last int64) (io.ReadCloser, fetch.Info, error) {
	if place := s.moved.Load(); place != nil {
		b, info, err := s.ask(ctx, s.direct.Do, place, first, last)
		if err == nil {
			return b, info, nil
		}
		s.moved.CompareAndSwap(place, nil)
		if busy := (*fetch.Busy)(nil); ctx.Err() != nil || errors.As(err, &busy) {
			return nil, info, err
		}
	}
	scoped := auth.AppendRepositoryScope(ctx, s.reference, auth.ActionPull)
	return s.ask(scoped, s.client.Do, s.url(), first, last)
}

func (s *server) url() *url.URL {
	scheme := "https"
	if s.plain {
		scheme = "http"
	}
	return &url.URL{Scheme: scheme, Host: s.reference.Host(), Path: "/v2/" + s.reference.Repository + "/blobs/" + s.digest.String()}
}

func (s *server) ask(ctx context.Context, do func(*http.Request) (*http.Response, error), u *url.URL, first, last int64) (io.ReadCloser, fetch.Info, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fetch.Info{}, fmt.Errorf("%s: %w: %w", u.Host, err, errs.Invalid)
	}
	if last >= 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", first, last))
	}
	resp, err := do(req)
	if err != nil {
		return nil, fetch.Info{}, s.explain(ctx, err)
	}
	info, err := s.read(ctx, resp)
	if err != nil {
		_ = resp.Body.Close() // only read
		return nil, info, err
	}
	place := resp.Request.URL
	if origin(place) == origin(s.url()) || resp.Request.Header.Get("Authorization") != "" {
		return resp.Body, info, nil
	}
	s.moved.Store(place)
	return &elsewhere{resp.Body, func() { s.moved.CompareAndSwap(place, nil) }}, info, nil
}

// elsewhere is a body from where the server redirects to, which is forgotten when
// the body fails.
type elsewhere struct {
	io.ReadCloser
	forget func()
}

// Read implements io.Reader.
func (e *elsewhere) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		e.forget()
	}
	return n, err
}

func origin(u *url.URL) string { return strings.ToLower(u.Scheme + "://" + u.Host) }

// read reads what a response says of its body.
func (s *server) read(ctx context.Context, resp *http.Response) (fetch.Info, error) {
	info := fetch.Info{Length: resp.ContentLength, Total: -1}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		info.Partial = true
		info.First, info.Last, info.Total = contentRange(resp.Header.Get("Content-Range"))
	case http.StatusRequestedRangeNotSatisfiable: // all of it will tell why
		info.Partial, info.First, info.Last = true, -1, -1
	default:
		return info, s.refused(ctx, resp)
	}
	told := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if told.Validate() == nil && told.Algorithm() == s.digest.Algorithm() && told != s.digest {
		return info, fmt.Errorf("%s: it answers with blob %s: %w", resp.Request.URL.Host, told, errs.Invalid)
	}
	return info, nil
}

// refused makes an error of an answer that is none of the blob.
func (s *server) refused(ctx context.Context, resp *http.Response) error {
	err := s.explain(ctx, ofStatus(answer(resp)))
	switch wait := retryAfter(resp.Header.Get("Retry-After"), time.Now()); {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable, wait > 0:
		return &fetch.Busy{After: wait, Err: err}
	case origin(resp.Request.URL) != origin(s.url()):
		// Of where the server redirects to: the next redirect may be better.
		return fmt.Errorf("redirected to %s, which answers %d %s: %w",
			resp.Request.URL.Host, resp.StatusCode, http.StatusText(resp.StatusCode), errs.Unavailable)
	}
	return err
}

// answer reads an answer that is an error.
func answer(resp *http.Response) *errcode.ErrorResponse {
	a := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var said struct {
		Errors errcode.Errors `json:"errors"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&said) == nil {
		a.Errors = said.Errors
	}
	return a
}

// contentRange reads "bytes FIRST-LAST/TOTAL", where TOTAL may be *; numbers that
// it does not find are negative.
func contentRange(text string) (first, last, total int64) {
	numbers, size, _ := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	from, to, _ := strings.Cut(numbers, "-")
	return number(from), number(to), number(size)
}

func number(text string) int64 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
	if err != nil {
		return -1
	}
	return int64(n)
}

// retryAfter reads seconds or a date; zero where there is neither.
func retryAfter(text string, now time.Time) time.Duration {
	const most = 100 * 24 * time.Hour // no overflow
	if n := number(text); n >= 0 {
		return time.Duration(min(n, int64(most/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

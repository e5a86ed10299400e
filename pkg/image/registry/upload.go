package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/berth-run/berth/pkg/errs"
)

// upload is one blob on its way to a server:
//
//	POST ─▶ place ─▶ PATCH … PATCH ─▶ PUT digest
//	  ▲                 │ failed         │
//	  └──── gone ◀── GET place ◀─────────┘
//	                    └─▶ offset ─▶ PATCH
//
// Each answer may move the place. A blob of one chunk goes with the PUT, and so does
// any where the server takes no chunks.
type upload struct {
	target *Target
	desc   ispec.Descriptor
	open   Opener
	mu     sync.Mutex // around sent
	sent   func(int64)

	place  *url.URL // nil before the upload has begun
	offset int64    // what the server has
	least  int64    // that a chunk must have, the last one apart
	whole  bool     // it takes no chunks
	done   bool
}

// run takes steps until the blob is there.
func (u *upload) run(ctx context.Context) error {
	retries := u.target.source.client.options.MaxRetries
	best, wait, failures := int64(-1), uploadWait, 0
	for !u.done {
		err := u.step(ctx)
		if err == nil {
			if u.offset > best {
				best, wait, failures = u.offset, uploadWait, 0
			}
			continue
		}
		if u.unchunked(err) {
			u.whole, u.place = true, nil
			continue
		}
		after, again := temporary(err)
		again = again || gone(err) && u.place != nil
		if !again || failures >= retries || ctx.Err() != nil {
			return err
		}
		failures++
		select {
		case <-ctx.Done():
			return err
		case <-time.After(min(max(wait, after), maxUploadWait)):
		}
		wait = min(2*wait, maxUploadWait)
		u.resume(ctx)
		if u.offset > best { // some of it has come all the same
			best, wait, failures = u.offset, uploadWait, 0
		}
	}
	return nil
}

// unchunked reports whether a server refuses chunks as such.
func (u *upload) unchunked(err error) bool {
	var said *uploadError
	if u.whole || u.place == nil || u.offset > 0 || u.desc.Size <= u.target.source.client.options.UploadChunk || !errors.As(err, &said) {
		return false
	}
	switch said.status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		return true
	}
	return false
}

// step begins the upload, sends a chunk, or ends it.
func (u *upload) step(ctx context.Context) error {
	most := max(u.target.source.client.options.UploadChunk, u.least)
	switch left := u.desc.Size - u.offset; {
	case u.place == nil:
		return u.begin(ctx)
	case left > most && !u.whole, left > 0 && u.offset > 0:
		return u.chunk(ctx, min(left, most))
	default:
		return u.end(ctx, left)
	}
}

func (u *upload) begin(ctx context.Context) error {
	s := u.target.source
	path := "/v2/" + s.blobs.reference.Repository + "/blobs/uploads/"
	begin := &url.URL{Scheme: s.endpoint.Scheme, Host: s.blobs.reference.Host(), Path: path}
	resp, err := u.do(ctx, s.blobs.client, http.MethodPost, begin, 0)
	if err != nil {
		return err
	}
	if err := u.expect(resp, http.StatusAccepted); err != nil {
		return err
	}
	if u.place == nil {
		return fmt.Errorf("the answer does not tell where to upload to: %w", errs.Invalid)
	}
	u.offset, u.least = 0, number(resp.Header.Get("OCI-Chunk-Min-Length"))
	return nil
}

func (u *upload) chunk(ctx context.Context, n int64) error {
	resp, err := u.do(ctx, u.target.source.blobs.located, http.MethodPatch, u.place, n)
	if err != nil {
		return err
	}
	if err := u.expect(resp, http.StatusAccepted, http.StatusNoContent); err != nil {
		return err
	}
	u.offset += n
	if has, ok := received(resp); ok && has < u.offset { // it has not taken all of it
		u.offset = has
	}
	return nil
}

func (u *upload) end(ctx context.Context, n int64) error {
	place := *u.place
	q := place.Query()
	q.Set("digest", u.desc.Digest.String())
	place.RawQuery = q.Encode()
	resp, err := u.do(ctx, u.target.source.blobs.located, http.MethodPut, &place, n)
	if err != nil {
		return err
	}
	if err := u.expect(resp, http.StatusCreated, http.StatusNoContent, http.StatusOK); err != nil {
		return err
	}
	u.offset, u.done = u.desc.Size, true
	return nil
}

// resume asks how much has come. A server that does not know the upload any more
// may have the blob; else the upload begins anew.
func (u *upload) resume(ctx context.Context) {
	if u.place != nil {
		resp, err := u.do(ctx, u.target.source.blobs.located, http.MethodGet, u.place, 0)
		if err == nil {
			err = u.expect(resp, http.StatusNoContent, http.StatusOK, http.StatusAccepted)
		}
		if err == nil {
			if has, ok := received(resp); ok && has <= u.desc.Size {
				u.offset = has
				return
			}
		}
		if _, again := temporary(err); again && !gone(err) {
			return // the next step tells
		}
	}
	u.place, u.offset = nil, 0
	if ok, err := u.target.has(ctx, u.desc); err == nil && ok {
		u.offset, u.done = u.desc.Size, true
	}
}

// received is how much a server says it has.
func received(resp *http.Response) (int64, bool) {
	_, last, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-")
	n := number(last)
	if !ok || n < 0 {
		return 0, false
	}
	if n == 0 {
		return 0, true // nothing, as servers say it; no chunk has one byte
	}
	return n + 1, true
}

// do sends n bytes of the blob from the offset on. The caller reads no body.
func (u *upload) do(ctx context.Context, client remote.Client, method string, to *url.URL, n int64) (*http.Response, error) {
	o := u.target.source.client.options
	ctx, cancel := context.WithCancelCause(u.target.scoped(ctx))
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, method, to.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", to.Host, err, errs.Invalid)
	}
	if from := u.offset; n > 0 { // the body is read by others, maybe for longer than this call lasts
		stalled := time.AfterFunc(o.StallTimeout, func() {
			cancel(fmt.Errorf("%s takes nothing for %s: %w", to.Host, o.StallTimeout, errs.Unavailable))
		})
		defer stalled.Stop()
		req.ContentLength = n
		req.GetBody = func() (io.ReadCloser, error) {
			r, err := u.open(ctx, from)
			if err != nil {
				return nil, err
			}
			return &sending{Reader: io.LimitReader(r, n), Closer: r, alive: func(sent int64) {
				stalled.Reset(o.StallTimeout)
				u.tell(from + sent)
			}}, nil
		}
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		if method == http.MethodPatch {
			req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", from, from+n-1))
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return nil, &uploadError{status: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"), time.Now()), err: ofStatus(answer(resp))}
	}
	return resp, nil
}

func (u *upload) tell(sent int64) {
	if u.sent != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.sent(sent)
	}
}

// sending is a part of a blob that is being sent.
type sending struct {
	io.Reader
	io.Closer
	n     int64
	alive func(sent int64)
}

// Read implements io.Reader.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.n += int64(n)
	s.alive(s.n)
	return n, err
}

// expect checks an answer's status and takes the place that it names. On the
// server itself that is spoken to as before, whatever a proxy has made of the URL;
// elsewhere it is plain only where the server is.
func (u *upload) expect(resp *http.Response, status ...int) error {
	known := false
	for _, s := range status {
		known = known || resp.StatusCode == s
	}
	if !known {
		return fmt.Errorf("%s answers %d %s: %w", resp.Request.URL.Host, resp.StatusCode, http.StatusText(resp.StatusCode), errs.Unavailable)
	}
	place, err := resp.Location()
	if errors.Is(err, http.ErrNoLocation) {
		return nil // as it was
	}
	if err != nil {
		return fmt.Errorf("the answer has a bad Location: %w", errs.Invalid)
	}
	e := u.target.source.endpoint
	switch {
	case place.Host == e.Host:
		place.Scheme = e.Scheme
	case place.Scheme != "https" && e.Scheme == "https":
		return fmt.Errorf("uploads are sent on to %s without TLS: %w", place.Host, errs.Denied)
	}
	u.place = place
	return nil
}

// uploadError is an answer that says no.
type uploadError struct {
	status int
	after  time.Duration // when to ask again
	err    error
}

// Error implements error.
func (e *uploadError) Error() string { return e.err.Error() }

// Unwrap returns what the server said.
func (e *uploadError) Unwrap() error { return e.err }

// gone reports whether a server does not know an upload any more.
func gone(err error) bool {
	var u *uploadError
	return errors.As(err, &u) && (u.status == http.StatusNotFound || u.status == http.StatusGone)
}

// temporary reports whether another attempt may help, and when.
func temporary(err error) (after time.Duration, again bool) {
	var u *uploadError
	if errors.As(err, &u) {
		switch {
		case u.status >= 500, u.status == http.StatusRequestTimeout, u.status == http.StatusTooManyRequests,
			u.status == http.StatusRequestedRangeNotSatisfiable:
			return u.after, true
		}
		return 0, false
	}
	kind := errs.Of(err)
	return 0, err != nil && (kind == "" || kind == errs.Unavailable || kind == errs.Timeout)
}

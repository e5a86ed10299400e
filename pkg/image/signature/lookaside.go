package signature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/reference"
)

// lookaside reads signature-1, signature-2 and so on, up to the first that is not
// there, from <base>/<path of the repository>@<algorithm>=<digest>/.
func (f *Finder) lookaside(ctx context.Context, base string, n reference.Name, d digest.Digest) ([]Signature, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("lookaside: %w: %w", err, errs.Invalid)
	}
	var out []Signature
	for i := 1; ; i++ {
		at := *u
		at.Path = fmt.Sprintf("%s/%s@%s=%s/signature-%d", u.Path, n.Path, d.Algorithm(), d.Encoded(), i)
		data, err := f.fetch(ctx, &at)
		if missing(err) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at.Redacted(), err)
		}
		if i > maxSignatures {
			return nil, tooMany()
		}
		out = append(out, Signature{Simple: data})
	}
}

// fetch returns what is at u. The error is of kind NotFound where nothing is.
func (f *Finder) fetch(ctx context.Context, u *url.URL) ([]byte, error) {
	switch u.Scheme {
	case "file":
		return readFile(u.Path)
	case "http", "https":
		return f.get(ctx, u.String())
	}
	return nil, fmt.Errorf("lookaside with scheme %.20q is not supported: %w", u.Scheme, errs.Unsupported)
}

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold us
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, errs.NotFound
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("not a regular file: %w", errs.Invalid))
	}
	return readBounded(f)
}

func (f *Finder) get(ctx context.Context, link string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		return nil, err
	}
	response, err := f.client.Do(request)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // its text has the whole link
			err = u.Err
		}
		return nil, unavailable(ctx, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		_, _ = io.CopyN(io.Discard, response.Body, maxSize) // to use the connection again
		return nil, errs.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%s: %w", response.Status, errs.Denied)
	default:
		return nil, fmt.Errorf("%s: %w", response.Status, errs.Unavailable)
	}
	data, err := readBounded(response.Body)
	if err != nil && errs.Of(err) == "" {
		err = unavailable(ctx, err)
	}
	return data, err
}

func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil || errs.Of(err) == errs.Invalid {
		return err
	}
	return fmt.Errorf("%s: %w", err.Error(), errs.Unavailable)
}

// checkRedirect follows a few, and none from TLS to plain text.
func checkRedirect(next *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return fmt.Errorf("more than 5 redirects: %w", errs.Invalid)
	}
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return fmt.Errorf("redirected from https to %s: %w", next.URL.Scheme, errs.Invalid)
	}
	return nil
}

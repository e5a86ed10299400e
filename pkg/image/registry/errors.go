package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/berth-run/berth/pkg/errs"
)

// serverError says which server an error came from, where it does not say so
// itself.
type serverError struct {
	host string
	err  error
}

// Error implements error.
func (s *serverError) Error() string {
	text := s.err.Error()
	if strings.Contains(text, s.host) {
		return text
	}
	return s.host + ": " + text
}

// Unwrap returns the error itself.
func (s *serverError) Unwrap() error { return s.err }

// explain gives an error its kind and takes from its text what may be secret:
// the query of a URL can hold a signature.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	var response *errcode.ErrorResponse
	var link *url.Error
	switch {
	case errs.Of(err) != "", errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%sdoes not have it: %w", at(err), errs.NotFound)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%swants credentials: %w", at(err), errs.Denied)
	case errors.As(err, &response):
		return ofStatus(response)
	case errors.As(err, &link):
		return fmt.Errorf("%s: %w: %w", hostOf(link.URL), link.Err, errs.Unavailable)
	}
	return fmt.Errorf("%w: %w", err, errs.Unavailable)
}

func ofStatus(r *errcode.ErrorResponse) error {
	text := fmt.Sprintf("%d %s", r.StatusCode, http.StatusText(r.StatusCode))
	if len(r.Errors) > 0 {
		text += fmt.Sprintf(" (%s)", r.Errors.Error())
	}
	if r.URL != nil {
		text = r.URL.Host + ": " + text
	}
	kind := errs.Unavailable
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = errs.Denied
	case http.StatusNotFound:
		kind = errs.NotFound
	case http.StatusBadRequest:
		kind = errs.Invalid
	}
	return fmt.Errorf("%s: %w", text, kind)
}

// at is who said something.
func at(err error) string {
	var s *serverError
	if errors.As(err, &s) {
		return s.host + ": the registry "
	}
	return "the registry "
}

func hostOf(link string) string {
	u, err := url.Parse(link)
	if err != nil {
		return "the registry"
	}
	return u.Host
}

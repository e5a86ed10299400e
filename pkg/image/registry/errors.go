package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/berth-run/berth/pkg/errs"
)

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
		return fmt.Errorf("the registry does not have it: %w", errs.NotFound)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("the registry wants credentials: %w", errs.Denied)
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
		text += fmt.Sprintf(" (%.300s)", r.Errors.Error())
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

func hostOf(link string) string {
	u, err := url.Parse(link)
	if err != nil {
		return "the registry"
	}
	return u.Host
}

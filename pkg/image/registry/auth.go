package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

// Auth is what a request brings to prove who asks. The zero value asks as
// nobody. It never shows its secrets when printed.
type Auth struct {
	Username string
	Password string
	// Auth is base64 of username:password, used where those are empty.
	Auth string
	// ServerAddress is the registry that the rest is for; empty means the one
	// that is asked. For another registry nothing is sent.
	ServerAddress string
	// IdentityToken is exchanged for an access token.
	IdentityToken string
	// RegistryToken is a bearer token, sent as it is.
	RegistryToken string
}

// String hides the secrets.
func (a Auth) String() string {
	if a == (Auth{}) {
		return "anonymous"
	}
	return "[redacted]"
}

// GoString hides the secrets.
func (a Auth) GoString() string { return a.String() }

// MarshalLog hides the secrets from structured logs.
func (a Auth) MarshalLog() any { return a.String() }

// credential returns what it proves who asks with.
func (a Auth) credential() (auth.Credential, error) {
	c := auth.Credential{Username: a.Username, Password: a.Password, RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken}
	if c != auth.EmptyCredential || a.Auth == "" {
		return c, nil
	}
	data, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return auth.EmptyCredential, fmt.Errorf("auth is not base64: %w", errs.Invalid)
	}
	user, password, ok := strings.Cut(string(data), ":")
	if !ok {
		return auth.EmptyCredential, fmt.Errorf("auth is not username:password: %w", errs.Invalid)
	}
	c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	return c, nil
}

// secrets are what nobody may read in an error.
func (a Auth) secrets() []string {
	c, _ := a.credential() // one that is not valid has been refused
	return []string{a.Password, a.Auth, a.IdentityToken, a.RegistryToken, c.Password}
}

// isFor reports whether a may be sent to an endpoint: the registry itself, or the
// host that a names.
func (a Auth) isFor(e hosts.Endpoint) bool {
	if a.ServerAddress == "" {
		return e.Registry != ""
	}
	named := canonical(serverHost(a.ServerAddress))
	return named == canonical(e.Host) || e.Registry != "" && named == canonical(e.Registry)
}

// credential returns what finds the credentials for an endpoint when it asks for
// them: those of the request, or else the node's.
func (c *Client) credential(e hosts.Endpoint, a Auth, s *secrets) auth.CredentialFunc {
	return func(ctx context.Context, host string) (auth.Credential, error) {
		if host != e.Host {
			return auth.EmptyCredential, nil
		}
		if own, err := a.credential(); err != nil || own != auth.EmptyCredential && a.isFor(e) {
			return own, err
		}
		found, err := c.options.AuthFiles.Find(ctx, e.Host, e.Repository, c.hosts.CredentialHelpers())
		s.add(found.Password, found.IdentityToken)
		return auth.Credential{Username: found.Username, Password: found.Password, RefreshToken: found.IdentityToken}, err
	}
}

// serverHost takes the host from an address with or without a scheme and path.
func serverHost(address string) string {
	if strings.Contains(address, "://") {
		if u, err := url.Parse(address); err == nil {
			return u.Host
		}
	}
	host, _, _ := strings.Cut(address, "/")
	return host
}

// canonical maps the several names of Docker's registry to one.
func canonical(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		return "docker.io"
	}
	return strings.ToLower(host)
}

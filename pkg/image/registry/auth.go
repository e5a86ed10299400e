package registry

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-run/berth/pkg/errs"
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

// credential returns what may be sent to host.
func (a Auth) credential(host string) (auth.Credential, error) {
	if a.ServerAddress != "" && !sameRegistry(serverHost(a.ServerAddress), host) {
		return auth.EmptyCredential, nil
	}
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

func sameRegistry(a, b string) bool { return canonical(a) == canonical(b) }

// canonical maps the several names of Docker's registry to one.
func canonical(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com":
		return dockerHub
	}
	return strings.ToLower(host)
}

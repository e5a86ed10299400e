// Package signature finds the signatures of images, where registries.d says that
// they are: simple signatures in a lookaside store, sigstore's beside the image in
// its repository. It verifies none of them: package policy does.
//
// Everything that it reads from a store or a registry is bounded in number and
// size. To a lookaside store no credentials are sent.
package signature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/blob"
	"github.com/berth-run/berth/pkg/image/reference"
)

// Bounds on what is read of the signatures of one manifest.
const (
	maxSignatures = 64
	maxSize       = 128 << 10 // of one, with its annotations
	maxManifest   = 4 << 20
)

// Signature is a signature as it was found: Simple is an OpenPGP message, or
// Payload and Notes are a sigstore signature.
type Signature struct {
	Simple  []byte            `json:"simple,omitempty"`
	Payload []byte            `json:"payload,omitempty"`
	Notes   map[string]string `json:"annotations,omitempty"`
}

// Size is about what the signature takes, in bytes.
func (s Signature) Size() int {
	n := len(s.Simple) + len(s.Payload)
	for key, value := range s.Notes {
		n += len(key) + len(value)
	}
	return n
}

// Kinds says which signatures are meant.
type Kinds struct{ Simple, Sigstore bool }

// Any reports whether any are.
func (k Kinds) Any() bool { return k.Simple || k.Sigstore }

// Repository is the image's repository in its registry.
type Repository interface {
	Manifest(ctx context.Context, reference string, limit int64) (ispec.Descriptor, []byte, error)
	Blob(ctx context.Context, d ispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// Finder finds signatures. Its methods are safe for concurrent use.
type Finder struct {
	// Dirs are registries.d directories.
	Dirs []string
	// Builtin is where simple signatures are where no file says it.
	Builtin string
	client  *http.Client
}

// NewFinder returns a finder that reads the files below dirs each time.
func NewFinder(dirs []string) *Finder {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &Finder{Dirs: dirs, Builtin: "file:///var/lib/containers/sigstore", client: &http.Client{
		Transport: transport, Timeout: time.Minute, CheckRedirect: checkRedirect,
	}}
}

// Close closes idle connections.
func (f *Finder) Close() { f.client.CloseIdleConnections() }

// Scopes are the keys of policies and of registries.d that cover a name, the
// narrowest first.
func Scopes(n reference.Name) []string {
	scopes := []string{n.String()}
	name := n.Repository()
	for {
		scopes = append(scopes, name)
		cut := strings.LastIndexByte(name, '/')
		if cut < 0 {
			break
		}
		name = name[:cut]
	}
	if !strings.HasPrefix(name, "[") { // an IPv6 address has no domain above it
		host, _, _ := strings.Cut(name, ":")
		for _, rest, ok := strings.Cut(host, "."); ok; _, rest, ok = strings.Cut(rest, ".") {
			scopes = append(scopes, "*."+rest)
		}
	}
	return scopes
}

// Find returns the signatures of manifests in a repository. The error is of kind
// Unavailable where a store does not answer, Invalid for what is larger or more
// than can be meant.
func (f *Finder) Find(ctx context.Context, n reference.Name, digests []digest.Digest, k Kinds, r Repository) ([]Signature, error) {
	places, err := readRegistriesD(f.Dirs)
	if err != nil {
		return nil, err
	}
	var out []Signature
	for _, d := range digests {
		if err := blob.Validate(d); err != nil {
			return nil, err
		}
		if k.Simple {
			found, err := f.lookaside(ctx, places.lookaside(n, f.Builtin), n, d)
			if err != nil {
				return nil, fmt.Errorf("simple signatures of %s: %w", d, err)
			}
			out = append(out, found...)
		}
		if k.Sigstore && places.attachments(n) {
			found, err := attached(ctx, d, r)
			if err != nil {
				return nil, fmt.Errorf("sigstore signatures of %s: %w", d, err)
			}
			out = append(out, found...)
		}
	}
	return out, nil
}

// readBounded reads a signature.
func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("a signature of more than %d bytes: %w", maxSize, errs.Invalid)
	}
	return data, err
}

func tooMany() error {
	return fmt.Errorf("more than %d signatures: %w", maxSignatures, errs.Invalid)
}

// missing reports that something is not there, which ends a list of signatures.
func missing(err error) bool { return errors.Is(err, errs.NotFound) }

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/registry/hosts"
)

// Target is the server that takes what is pushed to a repository. Its methods are
// safe for concurrent use.
type Target struct{ source *Source }

// Target finds the server to push to: the first that may be, and no other. The
// credentials of r are asked for pulls and pushes at once.
func (r *Repository) Target(ctx context.Context) (*Target, error) {
	var last error
	for _, s := range *r.sources.Load() {
		if s.endpoint.Can&hosts.Push == 0 {
			continue
		}
		if last != nil && !(s.endpoint.Fallback && otherProtocol(last, s.endpoint.Host)) {
			break
		}
		t := &Target{source: s}
		_, err := t.has(ctx, ispec.DescriptorEmptyJSON)
		if err == nil {
			return t, nil
		}
		last = &serverError{host: s.endpoint.Host, err: err}
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		return nil, fmt.Errorf("push to %s: no server is configured that takes it: %w", r.name, errs.Invalid)
	}
	return nil, fmt.Errorf("push to %s: %w", r.name, r.explain(ctx, last))
}

// scoped asks for credentials that are good for all of a push.
func (t *Target) scoped(ctx context.Context) context.Context {
	return auth.AppendRepositoryScope(ctx, t.source.remote.Reference, auth.ActionPull, auth.ActionPush)
}

// failed explains what went wrong with a blob or a manifest.
func (t *Target) failed(ctx context.Context, what string, d ispec.Descriptor, err error) error {
	if err == nil {
		return nil
	}
	r := t.source.repository
	return fmt.Errorf("%s %s to %s: %w", what, d.Digest, r.name, r.explain(ctx, &serverError{host: t.source.endpoint.Host, err: err}))
}

func (t *Target) has(ctx context.Context, d ispec.Descriptor) (bool, error) {
	return t.source.remote.Blobs().Exists(t.scoped(ctx), d)
}

// Has reports whether the repository has a blob.
func (t *Target) Has(ctx context.Context, d ispec.Descriptor) (bool, error) {
	ok, err := t.has(ctx, d)
	return ok, t.failed(ctx, "push blob", d, err)
}

// errNotMounted ends a mount that the server answered as the begin of an upload.
var errNotMounted = errors.New("not mounted")

// Mount has the server take a blob from another of its repositories, and reports
// whether it did: that it may not, or does not want to, is no error.
func (t *Target) Mount(ctx context.Context, d ispec.Descriptor, from string) bool {
	if !strings.HasSuffix(t.source.repository.name, "/"+t.source.endpoint.Repository) {
		return false // who knows what it calls the other one
	}
	err := t.source.remote.Mount(t.scoped(ctx), d, from, func() (io.ReadCloser, error) { return nil, errNotMounted })
	return err == nil
}

// Manifest uploads a manifest under a tag, or under its digest alone where tag is
// empty. The blobs that it names must be there.
func (t *Target) Manifest(ctx context.Context, d ispec.Descriptor, data []byte, tag string) error {
	limited, cancel := context.WithTimeout(t.scoped(ctx), 2*t.source.client.options.StallTimeout)
	defer cancel()
	manifests := t.source.remote.Manifests()
	if tag == "" {
		return t.failed(ctx, "push manifest", d, manifests.Push(limited, d, bytes.NewReader(data)))
	}
	return t.failed(ctx, "push manifest", d, manifests.PushReference(limited, d, bytes.NewReader(data), tag))
}

// Opener gives a blob from an offset in bytes on.
type Opener func(ctx context.Context, offset int64) (io.ReadCloser, error)

// uploadWait is how long the first attempt after a failure waits, and maxUploadWait
// the last.
const (
	uploadWait    = 200 * time.Millisecond
	maxUploadWait = time.Minute
)

// Upload uploads a blob in chunks. After a failure it asks the server how much has
// come, and goes on from there; it gives up when several attempts in a row have
// brought nothing. sent, if not nil, is told how much is there.
func (t *Target) Upload(ctx context.Context, d ispec.Descriptor, open Opener, sent func(int64)) error {
	u := &upload{target: t, desc: d, open: open, sent: sent}
	return t.failed(ctx, "push blob", d, u.run(ctx))
}

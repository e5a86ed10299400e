package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/flight"
	"github.com/berth-run/berth/pkg/image/manifest"
	"github.com/berth-run/berth/pkg/image/policy"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/registry"
	"github.com/berth-run/berth/pkg/image/trust"
	"github.com/berth-run/berth/pkg/internal/room"
	"github.com/berth-run/berth/pkg/internal/stage"
)

// Auth is what a request brings to prove who asks.
type Auth = registry.Auth

// Progress is one step of a pull or a push.
type Progress = flight.Progress

// PullRequest asks for an image.
type PullRequest struct {
	Ref  string // as users write it
	Auth Auth
	// Namespace is the Kubernetes one of the pod that the image is for: it may have
	// a signature policy of its own.
	Namespace string
	// Platform chooses from an index; nil means this machine.
	Platform *ispec.Platform
	// Handler is the runtime handler that it is for, "" for the default. All share
	// one image, which stays until none needs it.
	Handler string
	// Progress, if not nil, is told of each step, one call at a time; it must not
	// block. It is not called after Pull has returned.
	Progress func(Progress)
}

// Pull makes an image present and returns it. Equal requests at one time share
// one pull, which ends when the last of them is gone. The error is of kind
// Denied for credentials, NotFound for what the registry does not have,
// Unavailable where it does not answer, Invalid for content that is not what was
// promised, Exhausted where the disk is full; it is ErrRefused for what the
// signature policy does not accept, of which nothing stays.
func (s *Service) Pull(ctx context.Context, r PullRequest) (Image, error) {
	names, err := s.downloads.Load().registry.Hosts().Candidates(r.Ref)
	if err != nil {
		return Image{}, err
	}
	platform := manifest.Host()
	if r.Platform != nil {
		platform = *r.Platform
	}
	rules, err := s.trust.Policy(r.Namespace)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", r.Ref, err)
	}
	told := ""
	for n := 0; ; n++ { // there is one at least
		ref := names[n]
		i, err := s.flights.Do(ctx, flightKey(ref, r, platform, rules), r.Progress, func(ctx context.Context, report *flight.Reporter) (Image, error) {
			return s.pull(ctx, ref, r, platform, rules, report)
		})
		if err == nil {
			return i, nil
		}
		err = fmt.Errorf("%spull %s: %w", told, ref, err)
		if n == len(names)-1 || !elsewhere(err) {
			return Image{}, err
		}
		told = err.Error() + "; "
	}
}

// elsewhere reports whether a short name may be found in the next registry.
func elsewhere(err error) bool {
	return errors.Is(err, errs.NotFound) || errors.Is(err, errs.Denied) || errors.Is(err, errs.Unavailable)
}

// flightKey tells requests apart, credentials and policy included: one user's
// answer is not another's.
func flightKey(ref reference.Name, r PullRequest, p ispec.Platform, rules *policy.Policy) string {
	a := r.Auth
	return digest.FromString(strings.Join([]string{
		ref.String(), r.Handler, p.OS, p.Architecture, p.Variant, rules.Digest().String(),
		a.Username, a.Password, a.Auth, a.ServerAddress, a.IdentityToken, a.RegistryToken,
	}, "\x00")).String()
}

func (s *Service) pull(ctx context.Context, ref reference.Name, r PullRequest, platform ispec.Platform, rules *policy.Policy, report *flight.Reporter) (Image, error) {
	if err := rules.Foregone(ref); err != nil {
		return Image{}, err
	}
	repository, err := s.downloads.Load().registry.Repository(ref, r.Auth)
	if err != nil {
		return Image{}, err
	}
	report.Tell(Progress{Phase: flight.PhaseResolving})
	name := ref.Tag
	if ref.Digest != "" {
		name = ref.Digest.String()
	}
	var top digest.Digest
	get := func(d ispec.Descriptor) (manifest.Document, error) {
		which := name
		if top != "" {
			which = d.Digest.String()
		}
		desc, data, err := repository.Manifest(ctx, which, manifest.MaxSize)
		if top == "" {
			top = desc.Digest
		}
		return manifest.Document{Desc: desc, Data: data}, err
	}
	var m manifest.Document
	err = stage.Run(ctx, "pull manifest", func(context.Context) error {
		m, err = manifest.Descend(ispec.Descriptor{Digest: ref.Digest}, platform, get)
		return err
	})
	if err != nil {
		return Image{}, err
	}
	lease := s.catalog.Lease(m.Desc.Digest) // its signatures are kept before it is
	defer lease.Release()
	if err := s.trust.Pull(ctx, rules, trust.Image{Name: ref, Manifest: m.Desc.Digest, Indexes: []digest.Digest{top}}, repository); err != nil {
		return Image{}, err
	}
	refs := []string{reference.Name{Domain: ref.Domain, Path: ref.Path, Digest: top}.String()}
	if ref.Digest == "" {
		refs = append(refs, ref.String())
	}
	var i Image
	err = stage.Run(ctx, "pull content", func(ctx context.Context) error {
		i, err = s.add(ctx, m, repository, refs, r.Handler, report)
		return err
	})
	err = room.Explain(err, s.options.Root, 0)
	switch errs.Of(err) {
	case errs.Invalid, errs.Unsupported, errs.Exhausted: // else the next attempt goes on from what has come
		err = errors.Join(err, s.clean(ctx))
	}
	return i, err
}

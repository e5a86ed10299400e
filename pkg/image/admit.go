package image

import (
	"context"
	"slices"

	"github.com/berth-run/berth/pkg/image/policy"
	"github.com/berth-run/berth/pkg/image/reference"
	"github.com/berth-run/berth/pkg/image/signature"
	"github.com/berth-run/berth/pkg/image/trust"
)

// ErrRefused says that the signature policy does not accept an image. It comes
// with kind Denied.
var ErrRefused = policy.ErrRefused

// Admit returns ErrRefused unless the signature policy of a Kubernetes namespace
// accepts the use of an image that is here, under the name that its user asked
// for. One that was asked for by its id is accepted if it is under one of the
// names that it has. Where there is no policy it costs a look for its file.
func (s *Service) Admit(ctx context.Context, i Image, asked, namespace string) error {
	held := trust.Held{ID: i.ID, Manifest: i.Digest, Names: slices.Concat(i.RepoTags, i.RepoDigests)}
	return s.trust.Use(ctx, held, asked, namespace, func(host, path string) (signature.Repository, error) {
		return s.downloads.Load().registry.Repository(reference.Name{Domain: host, Path: path}, Auth{})
	})
}

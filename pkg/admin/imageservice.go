package admin

import (
	"context"
	"fmt"
	"io"
	"strings"

	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
)

// FromImages serves the API's image calls from the image service.
func FromImages(s *image.Service) Images { return imageService{s} }

type imageService struct{ *image.Service }

func (s imageService) Pull(ctx context.Context, r *apiv1.PullRequest, progress func(*apiv1.PullProgress)) (*apiv1.Image, error) {
	platform, err := parsePlatform(r.Platform)
	if err != nil {
		return nil, err
	}
	pulled, err := s.Service.Pull(ctx, image.PullRequest{
		Ref:      r.Image,
		Platform: platform,
		Auth: image.Auth{
			Username: r.GetAuth().GetUsername(), Password: r.GetAuth().GetPassword(),
			IdentityToken: r.GetAuth().GetIdentityToken(), RegistryToken: r.GetAuth().GetRegistryToken(),
		},
		Progress: func(p image.Progress) {
			progress(&apiv1.PullProgress{Digest: p.Digest, Offset: p.Offset, Total: p.Total, Phase: p.Phase})
		},
	})
	if err != nil {
		return nil, err
	}
	return imageMessage(pulled), nil
}

// parsePlatform reads OS/ARCH[/VARIANT]; empty means this machine.
func parsePlatform(s string) (*ispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return nil, fmt.Errorf("platform %q: write OS/ARCH or OS/ARCH/VARIANT, as in linux/arm64: %w", s, errs.Invalid)
	}
	p := &ispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}

func (s imageService) Load(ctx context.Context, archive io.Reader) ([]*apiv1.Image, error) {
	loaded, err := s.Service.Load(ctx, archive)
	if err != nil {
		return nil, err
	}
	var all []*apiv1.Image
	for _, i := range loaded {
		all = append(all, imageMessage(i))
	}
	return all, nil
}

func (s imageService) Save(ctx context.Context, r *apiv1.SaveRequest, archive io.Writer) error {
	return s.Service.Save(ctx, r.Images, image.SaveOptions{Format: image.Format(r.Format), Compression: r.Compression}, archive)
}

func imageMessage(i image.Image) *apiv1.Image {
	return &apiv1.Image{Id: i.ID.String(), Digest: i.Digest.String(), RepoTags: i.RepoTags, RepoDigests: i.RepoDigests, Size: i.Size}
}

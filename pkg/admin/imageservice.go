package admin

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

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
		Ref: r.Image, Platform: platform, Auth: authOf(r.Auth), Progress: told(progress),
	})
	if err != nil {
		return nil, err
	}
	return imageMessage(pulled), nil
}

func (s imageService) Push(ctx context.Context, r *apiv1.PushRequest, progress func(*apiv1.PullProgress)) (string, error) {
	d, err := s.Service.Push(ctx, image.PushRequest{
		Ref: r.Image, Auth: authOf(r.Auth), Compression: r.Compression, Progress: told(progress),
	})
	return d.String(), err
}

func authOf(a *apiv1.Auth) image.Auth {
	return image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}
}

func told(progress func(*apiv1.PullProgress)) func(image.Progress) {
	return func(p image.Progress) {
		progress(&apiv1.PullProgress{Digest: p.Digest, Offset: p.Offset, Total: p.Total, Phase: p.Phase})
	}
}

func (s imageService) History(_ context.Context, ref string) (*apiv1.HistoryResponse, error) {
	i, steps, err := s.Service.History(ref)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.HistoryResponse{}
	for n, step := range steps {
		l := &apiv1.HistoryLayer{CreatedBy: step.CreatedBy, Comment: step.Comment, Size: step.Size}
		if n == 0 {
			l.Id = i.ID.String()
		}
		if !step.Created.IsZero() {
			l.CreatedAt = step.Created.UnixNano()
		}
		resp.Layers = append(resp.Layers, l)
	}
	return resp, nil
}

func (s imageService) Prune(ctx context.Context, r *apiv1.PruneImagesRequest, used func() map[string]bool) (*apiv1.PruneImagesResponse, error) {
	o := image.PruneOptions{All: r.All, Used: used}
	if r.Until != 0 {
		o.Until = time.Unix(0, r.Until)
	}
	gone, freed, err := s.Service.Prune(ctx, o)
	resp := &apiv1.PruneImagesResponse{Freed: freed}
	for _, i := range gone {
		resp.Removed = append(resp.Removed, imageMessage(i))
	}
	return resp, err
}

func (s imageService) Usage(ctx context.Context, used map[string]bool) (*apiv1.DiskUsageResponse, error) {
	all, total, needed, err := s.Usages(ctx, used)
	resp := &apiv1.DiskUsageResponse{ImagesSize: total, ImagesReclaimable: max(0, total-needed)}
	for _, u := range all {
		resp.Images = append(resp.Images, &apiv1.ImageUsage{Image: imageMessage(u.Image), SharedSize: u.Shared, UniqueSize: u.Unique})
	}
	return resp, err
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

package cri

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image"
)

// Images answers the image service's calls.
type Images struct {
	Service *image.Service
	// Handlers are the runtime handlers that a pull may name.
	Handlers []string
}

// PullImage brings an image here and returns its id.
func (i *Images) PullImage(ctx context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	if err := i.checkHandler(r.GetImage().GetRuntimeHandler()); err != nil {
		return nil, err
	}
	a := r.GetAuth()
	pulled, err := i.Service.Pull(ctx, image.PullRequest{
		Ref: r.GetImage().GetImage(), Handler: r.GetImage().GetRuntimeHandler(),
		Namespace: r.GetSandboxConfig().GetMetadata().GetNamespace(), Auth: image.Auth{
			Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(), ServerAddress: a.GetServerAddress(),
			IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
		},
	})
	if err != nil {
		return nil, lacking(pullError(err))
	}
	return &runtimeapi.PullImageResponse{ImageRef: pulled.ID.String()}, nil
}

// pullError marks a registry that does not answer as CRI wants it: by the
// beginning of the text, and with no gRPC code of its own.
func pullError(err error) error {
	if errors.Is(err, errs.Unavailable) {
		return fmt.Errorf("%w: %w", crierrors.ErrRegistryUnavailable, notUs(err))
	}
	return sentinel(err)
}

// sentinel puts the word that CRI has for a failure at the beginning of the text,
// where kubelet looks. A refused image loses its kind: of a pull, kubelet looks
// only into errors without a gRPC code.
func sentinel(err error) error {
	if errors.Is(err, image.ErrRefused) {
		return fmt.Errorf("%w: %s", crierrors.ErrSignatureValidationFailed, err.Error())
	}
	for _, word := range []error{crierrors.ErrRROUnsupported, crierrors.ErrImageVolumeMountFailed} {
		if errors.Is(err, word) {
			return fmt.Errorf("%w: %w", word, err)
		}
	}
	return err
}

func (i *Images) checkHandler(name string) error {
	if name == "" || slices.Contains(i.Handlers, name) {
		return nil
	}
	return fmt.Errorf("runtime handler %q is not configured, this node has %s: %w", name, strings.Join(i.Handlers, ", "), errs.NotFound)
}

// ListImages lists all images, or those that the filter names.
func (i *Images) ListImages(_ context.Context, r *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	found, err := i.filtered(r.GetFilter().GetImage())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ListImagesResponse{Images: found}, nil
}

// filtered returns the image of a name, or all, once for each runtime handler that it
// is here for: kubelet tells images apart by both. A filter with a handler has only
// that one's.
func (i *Images) filtered(spec *runtimeapi.ImageSpec) (list []*runtimeapi.Image, err error) {
	if err := i.checkHandler(spec.GetRuntimeHandler()); err != nil {
		return nil, err
	}
	all := i.Service.List()
	if spec.GetImage() != "" {
		found, err := i.Service.Get(spec.GetImage())
		if err != nil {
			return nil, idempotent(err, true)
		}
		all = []image.Image{found}
	}
	for _, f := range all {
		for _, handler := range f.Handlers {
			if spec.GetRuntimeHandler() == "" || spec.GetRuntimeHandler() == handler {
				list = append(list, criImage(f, handler))
			}
		}
	}
	return list, nil
}

// ImageStatus tells of one image, and nothing where it is not here. All runtime
// handlers have all images.
func (i *Images) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	if err := i.checkHandler(r.GetImage().GetRuntimeHandler()); err != nil {
		return nil, err
	}
	found, err := i.Service.Get(r.GetImage().GetImage())
	if errors.Is(err, errs.NotFound) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ImageStatusResponse{Image: criImage(found, r.GetImage().GetRuntimeHandler())}
	if r.GetVerbose() {
		resp.Info, err = verbose(describe(found))
	}
	return resp, err
}

func describe(i image.Image) map[string]any {
	if i.ArtifactType != "" {
		return map[string]any{"artifactType": i.ArtifactType, "digest": i.Digest}
	}
	return map[string]any{"imageSpec": i.Config, "digest": i.Digest, "layers": i.Layers}
}

// RemoveImage removes an image with all of its names, unless other runtime handlers
// have it, too.
func (i *Images) RemoveImage(ctx context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	err := i.Service.Release(ctx, r.GetImage().GetImage(), r.GetImage().GetRuntimeHandler())
	if err := idempotent(err, missing(i.Service.Get(r.GetImage().GetImage()))); err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo tells what images take. Containers write to the same file system.
func (i *Images) ImageFsInfo(ctx context.Context, _ *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	fs, err := i.Service.FsInfo(ctx)
	if err != nil {
		return nil, err
	}
	usage := &runtimeapi.FilesystemUsage{
		Timestamp: time.Now().UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: fs.Mountpoint},
		UsedBytes: &runtimeapi.UInt64Value{Value: fs.UsedBytes}, InodesUsed: &runtimeapi.UInt64Value{Value: fs.InodesUsed},
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems: []*runtimeapi.FilesystemUsage{usage}, ContainerFilesystems: []*runtimeapi.FilesystemUsage{usage},
	}, nil
}

func criImage(i image.Image, handler string) *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id: i.ID.String(), RepoTags: i.RepoTags, RepoDigests: i.RepoDigests, Size: uint64(i.Size), Pinned: i.Pinned,
		Spec: &runtimeapi.ImageSpec{Image: i.ID.String(), Annotations: i.Annotations, RuntimeHandler: handler},
	}
	out.Uid, out.Username = imageUser(i.Config.Config.User)
	return out
}

// imageUser splits USER of an image into what CRI knows: a number or a name.
// Root needs no saying in an image.
func imageUser(user string) (*runtimeapi.Int64Value, string) {
	name, _, _ := strings.Cut(user, ":")
	if name == "" {
		return &runtimeapi.Int64Value{}, ""
	}
	if uid, err := strconv.ParseInt(name, 10, 32); err == nil && uid >= 0 {
		return &runtimeapi.Int64Value{Value: uid}, ""
	}
	return nil, name
}

// imageSpec calls an image by the name that its user knows: the one that was
// asked for where the image still has it, else any. kubelet shows it to people,
// and asks for images by their ids.
func imageSpec(i image.Image, asked *runtimeapi.ImageSpec) *runtimeapi.ImageSpec {
	names := slices.Concat(i.RepoTags, i.RepoDigests)
	wanted, err := image.NormalizeRef(cmp.Or(asked.GetUserSpecifiedImage(), asked.GetImage()))
	if err != nil || !slices.Contains(names, wanted) {
		wanted = cmp.Or(append(names, asked.GetImage())...)
	}
	return &runtimeapi.ImageSpec{
		Image: wanted, Annotations: asked.GetAnnotations(), UserSpecifiedImage: asked.GetUserSpecifiedImage(),
		RuntimeHandler: asked.GetRuntimeHandler(), ImageRef: asked.GetImageRef(),
	}
}

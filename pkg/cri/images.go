package cri

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

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
	pulled, err := i.Service.Pull(ctx, image.PullRequest{Ref: r.GetImage().GetImage(), Auth: image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(), ServerAddress: a.GetServerAddress(),
		IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}})
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: pulled.ID.String()}, nil
}

func (i *Images) checkHandler(name string) error {
	if name == "" {
		return nil
	}
	for _, h := range i.Handlers {
		if h == name {
			return nil
		}
	}
	return fmt.Errorf("runtime handler %q is not configured, this node has %s: %w", name, strings.Join(i.Handlers, ", "), errs.NotFound)
}

// ListImages lists all images, or the one that the filter names.
func (i *Images) ListImages(_ context.Context, r *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	resp := &runtimeapi.ListImagesResponse{}
	if ref := r.GetFilter().GetImage().GetImage(); ref != "" {
		found, err := i.Service.Get(ref)
		if err == nil {
			resp.Images = append(resp.Images, criImage(found))
		}
		return resp, idempotent(err)
	}
	for _, found := range i.Service.List() {
		resp.Images = append(resp.Images, criImage(found))
	}
	return resp, nil
}

// ImageStatus tells of one image, and nothing where it is not here.
func (i *Images) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	found, err := i.Service.Get(r.GetImage().GetImage())
	if errors.Is(err, errs.NotFound) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ImageStatusResponse{Image: criImage(found)}
	if r.GetVerbose() {
		resp.Info, err = verbose(map[string]any{"imageSpec": found.Config, "digest": found.Digest, "layers": found.Layers})
	}
	return resp, err
}

// RemoveImage removes an image with all of its names.
func (i *Images) RemoveImage(ctx context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	if err := idempotent(i.Service.Remove(ctx, r.GetImage().GetImage())); err != nil {
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

func criImage(i image.Image) *runtimeapi.Image {
	out := &runtimeapi.Image{
		Id: i.ID.String(), RepoTags: i.RepoTags, RepoDigests: i.RepoDigests, Size: uint64(i.Size), Pinned: i.Pinned,
		Spec: &runtimeapi.ImageSpec{Image: i.ID.String(), Annotations: i.Annotations},
	}
	user, _, _ := strings.Cut(i.Config.Config.User, ":")
	if uid, err := strconv.ParseInt(user, 10, 32); err == nil && uid >= 0 {
		out.Uid = &runtimeapi.Int64Value{Value: uid}
	} else if user == "" {
		out.Uid = &runtimeapi.Int64Value{} // root
	} else {
		out.Username = user
	}
	return out
}

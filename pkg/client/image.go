package client

import (
	"context"
	"errors"
	"io"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
	"github.com/berth-run/berth/pkg/errs"
)

// FindImage returns the image of that name or id; errs.NotFound where it is not
// on this node.
func (c *Client) FindImage(ctx context.Context, ref string) (*runtimeapi.Image, error) {
	resp, err := c.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return nil, err
	}
	if resp.Image == nil {
		return nil, fail(errs.NotFound, "no image %q on this node", ref)
	}
	return resp.Image, nil
}

// Pull brings an image here and calls progress, which may be nil, on the way.
func (c *Client) Pull(ctx context.Context, r *apiv1.PullRequest, progress func(*apiv1.PullProgress)) (*apiv1.Image, error) {
	stream, err := c.Admin.Pull(ctx, r)
	if err != nil {
		return nil, err
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, fail(errs.Unavailable, "pull %s: the daemon ended it", r.Image)
		case err != nil:
			return nil, err
		case m.Image != nil:
			return m.Image, nil
		case progress != nil && m.Progress != nil:
			progress(m.Progress)
		}
	}
}

// Push uploads an image and calls progress, which may be nil, on the way. It
// returns the digest of the manifest that the registry has then.
func Push(ctx context.Context, c *Client, r *apiv1.PushRequest, progress func(*apiv1.PullProgress)) (string, error) {
	stream, err := c.Admin.Push(ctx, r)
	if err != nil {
		return "", err
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return "", fail(errs.Unavailable, "push %s: the daemon ended it", r.Image)
		case err != nil:
			return "", err
		case m.Digest != "":
			return m.Digest, nil
		case progress != nil && m.Progress != nil:
			progress(m.Progress)
		}
	}
}

// PullPolicy says when run pulls the image.
type PullPolicy string

// The pull policies, as Docker names them.
const (
	PullMissing PullPolicy = "missing"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// EnsureImages returns the ids of the images that o needs, by their names, after
// pulls where the policy wants them.
func (c *Client) EnsureImages(ctx context.Context, o *RunOptions, policy PullPolicy, progress func(*apiv1.PullProgress)) (map[string]string, error) {
	names := []string{o.Image}
	for _, v := range o.Volumes {
		if v.Image != "" && !slices.Contains(names, v.Image) {
			names = append(names, v.Image)
		}
	}
	ids := map[string]string{}
	for _, name := range names {
		id, err := ensureImage(ctx, c, name, policy, progress)
		if err != nil {
			return nil, err
		}
		ids[name] = id
	}
	return ids, nil
}

func ensureImage(ctx context.Context, c *Client, ref string, policy PullPolicy, progress func(*apiv1.PullProgress)) (string, error) {
	if policy != PullAlways {
		image, err := c.FindImage(ctx, ref)
		if err == nil {
			return image.Id, nil
		}
		if policy == PullNever || !errors.Is(err, errs.NotFound) {
			return "", err
		}
	}
	image, err := c.Pull(ctx, &apiv1.PullRequest{Image: ref}, progress)
	if err != nil {
		return "", err
	}
	return image.Id, nil
}

// RemoveImage takes the name ref from its image, and removes the image with its
// last name. An image with several names that ref gives by id, or that a
// container uses, is errs.Conflict unless force is set. It tells what went.
func (c *Client) RemoveImage(ctx context.Context, ref string, force bool) (untagged, deleted []string, err error) {
	image, err := c.FindImage(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	name := namedBy(image, ref)
	if name != "" && len(image.RepoTags) > 1 {
		_, err := c.Admin.Untag(ctx, &apiv1.UntagRequest{Image: ref})
		return []string{name}, nil, err
	}
	if !force {
		if err := c.removable(ctx, image, name); err != nil {
			return nil, nil, err
		}
	}
	_, err = c.Admin.Untag(ctx, &apiv1.UntagRequest{Image: image.Id}) // for all runtime handlers
	return image.RepoTags, []string{image.Id}, err
}

func (c *Client) removable(ctx context.Context, image *runtimeapi.Image, name string) error {
	if name == "" && len(image.RepoTags) > 1 {
		return fail(errs.Conflict, "image %s has several names: remove one of %q, or all with -f", ShortID(image.Id), image.RepoTags)
	}
	used, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	for _, ctr := range used.Containers {
		if ctr.ImageId == image.Id || ctr.ImageRef == image.Id {
			return fail(errs.Conflict, "image %s is used by container %s: remove that first, or use -f", ShortID(image.Id), ctr.GetMetadata().GetName())
		}
	}
	return nil
}

// namedBy returns the tag of image that ref means, or "" where ref is an id or
// a digest. A person may leave out the defaults of a name.
func namedBy(image *runtimeapi.Image, ref string) string {
	for _, prefix := range []string{"", "docker.io/", "docker.io/library/"} {
		for _, suffix := range []string{"", ":latest"} {
			if full := prefix + ref + suffix; slices.Contains(image.RepoTags, full) {
				return full
			}
		}
	}
	return ""
}

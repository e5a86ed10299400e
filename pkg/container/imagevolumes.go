package container

import (
	"context"

	"github.com/berth-run/berth/pkg/image"
	"github.com/berth-run/berth/pkg/spec"
)

// imageVolumes mounts the images that the configuration mounts, tells the
// specification where, and returns their ids.
func imageVolumes(ctx context.Context, images Images, handler string, in *spec.Input) (map[int]string, error) {
	uid, gid, _, err := spec.UserNamespace(in.Pod)
	if err != nil {
		return nil, err
	}
	_, label, err := spec.SELinux(in.Pod, in.Container, in.Host)
	if err != nil {
		return nil, err
	}
	r := image.VolumesRequest{
		ContainerID: in.ID, Handler: handler, Namespace: in.Pod.GetMetadata().GetNamespace(), UIDMappings: uid, GIDMappings: gid, SELinuxLabel: label,
	}
	var places []int
	for n, m := range in.Container.GetMounts() {
		if spec.IsImageMount(m) {
			places = append(places, n)
			r.Sources = append(r.Sources, image.VolumeSource{
				Ref: m.GetImage().GetImage(), Asked: m.GetImage().GetUserSpecifiedImage(), SubPath: m.GetImageSubPath(), Path: m.GetContainerPath(),
			})
		}
	}
	if len(places) == 0 {
		return nil, nil
	}
	mounted, err := images.MountVolumes(ctx, r)
	if err != nil {
		return nil, err
	}
	ids := map[int]string{}
	in.ImageMounts = map[int]string{}
	for i, n := range places {
		ids[n], in.ImageMounts[n] = mounted[i].Image.String(), mounted[i].Path
	}
	return ids, nil
}

package daemon

import (
	"context"
	"maps"
	"slices"

	"github.com/berth-run/berth/pkg/admin"
	"github.com/berth-run/berth/pkg/container"
)

// users lists what uses images and volumes.
func (s *services) users(ctx context.Context, sizes bool) []admin.Container {
	var all []admin.Container
	for _, c := range s.containers.List() {
		u := admin.Container{
			ID: c.ID, Name: c.Config.GetMetadata().GetName(), Running: c.Status.State == container.Running,
			Images: append([]string{c.ImageID}, slices.Sorted(maps.Values(c.VolumeImages))...),
		}
		for _, m := range c.Config.GetMounts() {
			if m.HostPath != "" {
				u.Mounts = append(u.Mounts, m.HostPath)
			}
		}
		if sizes {
			if bytes, _, err := s.images.Usage(ctx, c.ID); err == nil { // else it is gone
				u.Written = int64(bytes)
			}
		}
		all = append(all, u)
	}
	return all
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	apiv1 "github.com/berth-run/berth/pkg/api/v1"
)

// Container is what uses images and volumes.
type Container struct {
	ID, Name string
	Images   []string // ids: the one that it is made of, then those of volumes
	Mounts   []string // host paths
	Running  bool
	// Written is how many bytes it has written.
	Written int64
}

// History tells what an image was made of.
func (s *Server) History(ctx context.Context, r *apiv1.HistoryRequest) (*apiv1.HistoryResponse, error) {
	return s.deps.Images.History(ctx, r.Image)
}

// PruneImages removes images that no container uses.
func (s *Server) PruneImages(ctx context.Context, r *apiv1.PruneImagesRequest) (*apiv1.PruneImagesResponse, error) {
	return s.deps.Images.Prune(ctx, r, func() map[string]bool {
		return imagesOf(s.containers(ctx, false))
	})
}

func imagesOf(all []Container) map[string]bool {
	used := map[string]bool{}
	for _, c := range all {
		for _, id := range c.Images {
			used[id] = true
		}
	}
	return used
}

func (s *Server) containers(ctx context.Context, sizes bool) []Container {
	if s.deps.Containers == nil {
		return nil
	}
	return s.deps.Containers(ctx, sizes)
}

// DiskUsage tells what images, containers and volumes take.
func (s *Server) DiskUsage(ctx context.Context, _ *apiv1.DiskUsageRequest) (*apiv1.DiskUsageResponse, error) {
	all := s.containers(ctx, true)
	resp, err := s.deps.Images.Usage(ctx, imagesOf(all))
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		u := &apiv1.ContainerUsage{Id: c.ID, Name: c.Name, Size: c.Written, Running: c.Running}
		for n, id := range c.Images {
			if n == 0 {
				u.Image = id
			}
			for _, i := range resp.Images {
				if i.Image.Id == id {
					i.Containers++
				}
			}
		}
		resp.Containers = append(resp.Containers, u)
	}
	resp.Volumes, err = volumes(ctx, filepath.Join(s.deps.Root, volumesDir), all)
	return resp, err
}

// volumes measures the named volumes, which are in dir.
func volumes(ctx context.Context, dir string, users []Container) ([]*apiv1.VolumeUsage, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var all []*apiv1.VolumeUsage
	for _, e := range entries {
		v := &apiv1.VolumeUsage{Name: e.Name()}
		path := filepath.Join(dir, e.Name())
		for _, c := range users {
			for _, m := range c.Mounts {
				if m == path || strings.HasPrefix(m, path+"/") {
					v.Containers++
					break
				}
			}
		}
		if v.Size, err = sizeOf(ctx, path); err != nil {
			return nil, fmt.Errorf("measure volume %s: %w", e.Name(), err)
		}
		all = append(all, v)
	}
	return all, nil
}

// sizeOf adds up the files of a tree. What goes meanwhile counts nothing.
func sizeOf(ctx context.Context, dir string) (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return errors.Join(err, ctx.Err())
		}
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
		return ctx.Err()
	})
	return total, err
}

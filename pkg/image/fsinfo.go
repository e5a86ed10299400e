package image

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// FsInfo is what images take of their file system.
type FsInfo struct {
	Mountpoint            string // a directory on that file system
	UsedBytes, InodesUsed uint64
	// Capacity of the whole file system.
	TotalBytes, FreeBytes uint64
}

// FsInfo adds up the records of layers and blobs; no layer is walked.
func (s *Service) FsInfo(context.Context) (FsInfo, error) {
	info := FsInfo{Mountpoint: s.options.Root}
	layers, err := s.layers.List()
	if err != nil {
		return info, fmt.Errorf("image file system: %w", err)
	}
	for _, d := range layers {
		if l, err := s.layers.Info(d); err == nil {
			info.UsedBytes += uint64(l.Bytes)
			info.InodesUsed += uint64(l.Inodes) + 3 // its two directories and its record
		}
	}
	trees, err := s.artifacts.List()
	if err != nil {
		return info, fmt.Errorf("image file system: %w", err)
	}
	for name := range trees {
		if t, err := s.artifacts.Info(name); err == nil {
			info.UsedBytes += uint64(t.Bytes)
			info.InodesUsed += uint64(t.Inodes)
		}
	}
	blobs, err := s.blobs.List()
	if err != nil {
		return info, fmt.Errorf("image file system: %w", err)
	}
	for _, b := range blobs {
		info.UsedBytes += uint64(b.Size)
		info.InodesUsed++
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.options.Root, &st); err != nil {
		return info, fmt.Errorf("image file system: %w", err)
	}
	info.TotalBytes = st.Blocks * uint64(st.Bsize)
	info.FreeBytes = st.Bavail * uint64(st.Bsize)
	return info, nil
}

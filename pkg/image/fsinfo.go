package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/image/layer"
)

// FsInfo is what images take of their file system.
type FsInfo struct {
	Mountpoint            string // a directory on that file system
	UsedBytes, InodesUsed uint64
	// Capacity of the whole file system.
	TotalBytes, FreeBytes uint64
}

// FsInfo adds up the records of layers, of which each is read once, of artifacts
// and of blobs. Each counts once, however many images have it; no layer is walked.
func (s *Service) FsInfo(context.Context) (FsInfo, error) {
	info := FsInfo{Mountpoint: s.options.Root}
	layers, err := s.layers.List()
	if err != nil {
		return info, fmt.Errorf("image file system: %w", err)
	}
	for _, size := range s.sizes.of(layers, s.layers) {
		info.UsedBytes += uint64(size.bytes)
		info.InodesUsed += uint64(size.inodes)
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

// layerSizes remembers what layers take, for kubelet asks every few seconds. The
// zero value is ready.
type layerSizes struct {
	mu    sync.Mutex
	known map[digest.Digest]layerSize
}

type layerSize struct{ bytes, inodes int64 }

// of returns the sizes of layers that are whole, and forgets all others.
func (l *layerSizes) of(layers []digest.Digest, store *layer.Store) map[digest.Digest]layerSize {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[digest.Digest]layerSize{}
	for _, d := range layers {
		if size, ok := l.known[d]; ok {
			now[d] = size
		} else if bytes, inodes := store.Usage(d); inodes > 0 {
			now[d] = layerSize{bytes, inodes}
		}
	}
	l.known = now
	return now
}

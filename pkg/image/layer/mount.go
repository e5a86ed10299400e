package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/image/erofs"
	"github.com/berth-run/berth/pkg/image/overlay"
	"github.com/berth-run/berth/pkg/image/tree"
	"github.com/berth-run/berth/pkg/internal/mountpoint"
	"github.com/berth-run/berth/pkg/internal/statefile"
)

// mounts is where images are mounted.
type mounts struct {
	dir string // "" where there is no such place
	shelf
}

// mounted returns where an image is mounted, which it is from now on.
func (s *Store) mounted(ctx context.Context, info Info) (string, error) {
	if s.mounts.dir == "" {
		return "", fmt.Errorf("image %s: no place to mount it: %w", info.DiffID, errs.Unsupported)
	}
	unlock, err := s.locks.Lock(ctx, name(info.DiffID))
	if err != nil {
		return "", err
	}
	defer unlock()
	target := filepath.Join(s.mounts.dir, name(info.DiffID))
	if mountpoint.Is(target) {
		return target, nil
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		return "", err
	}
	var devices []string
	for _, d := range info.Devices {
		if d.Layer < 0 || d.Layer >= len(info.Layers) {
			return "", fmt.Errorf("image %s: device of layer %d: %w", info.DiffID, d.Layer, statefile.ErrCorrupt)
		}
		devices = append(devices, s.device(info.Layers[d.Layer], d))
	}
	if err := erofs.Mount(filepath.Join(s.dir, name(info.DiffID), imageFile), devices, target); err != nil {
		_ = os.Remove(target) // empty
		if bad := s.verifyImage(ctx, info, filepath.Join(s.dir, name(info.DiffID))); bad != nil {
			err = errors.Join(err, damage(bad))
		}
		return "", fmt.Errorf("mount image %s: %w", info.DiffID, err)
	}
	return target, nil
}

// drop takes the mount of an image away and returns a descriptor that holds it
// until it is closed, or -1 where it is not mounted.
func (m mounts) drop(id digest.Digest) (int, error) {
	target := filepath.Join(m.dir, name(id))
	if m.dir == "" || !mountpoint.Is(target) {
		return -1, nil
	}
	fd, err := unix.Open(target, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: target, Err: err}
	}
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("unmount image %s: %w", id, err)
	}
	return fd, os.Remove(target)
}

// dropAll takes the mounts away of images that show files of a layer: containers
// that are made from now on see it as it is then.
func (m mounts) dropAll(diffID digest.Digest) error {
	return m.each(func(id digest.Digest) bool { return slices.Contains(m.needs(id), diffID) })
}

// sweep takes the mounts away of images that are not here, and those of a probe
// that was killed.
func (m mounts) sweep() error {
	probes, err := filepath.Glob(filepath.Join(m.dir, ingestPrefix+"*"))
	if err != nil || m.dir == "" {
		return err
	}
	for _, p := range probes {
		for _, d := range []string{aboveDir, belowDir} {
			_ = unix.Unmount(filepath.Join(p, d), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // not mounted as a rule
		}
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return m.each(func(id digest.Digest) bool { return !m.has(id, imageRecord) })
}

// each takes the mounts away of the images that gone tells.
func (m mounts) each(gone func(id digest.Digest) bool) error {
	names, err := os.ReadDir(m.dir)
	if err != nil {
		if m.dir == "" || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, n := range names {
		id, ok := digestOf(n.Name())
		if !ok || !gone(id) {
			continue
		}
		fd, err := m.drop(id)
		if err != nil {
			return err
		}
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// probe mounts an image of one file and an overlay over it, in the places that
// images have, and returns what was in the way.
func (m mounts) probe() (err error) {
	if m.dir == "" {
		return fmt.Errorf("no place for mounts: %w", errs.Unsupported)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("mount EROFS here: %w: %w", err, errs.Unsupported)
		}
	}()
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(m.shelf.dir, ingestPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	at, err := os.MkdirTemp(m.dir, ingestPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(at)
	return tryMount(temp, at)
}

// Where a probe mounts.
const (
	belowDir = "below"
	aboveDir = "above"
)

// tryMount makes an image below temp and mounts it below at.
func tryMount(temp, at string) error {
	content := bytes.Repeat([]byte("berth"), 512)
	kid := &tree.Node{Inode: &tree.Inode{Mode: unix.S_IFREG | 0o600, Size: int64(len(content))}}
	root := &tree.Node{Inode: &tree.Inode{Mode: unix.S_IFDIR | 0o755}, Kids: map[string]*tree.Node{"f": kid}}
	image, data := filepath.Join(temp, imageFile), filepath.Join(temp, tarFile)
	var b bytes.Buffer
	if _, err := erofs.Write(&b, root, [16]byte{}, func(erofs.Device) (int64, error) { return int64(len(content)), nil }); err != nil {
		return err
	}
	below, above := filepath.Join(at, belowDir), filepath.Join(at, aboveDir)
	o := overlay.Mount{Lower: []string{below}, Upper: filepath.Join(temp, "upper"), Work: filepath.Join(temp, "work")}
	for _, d := range []string{below, above, o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if err := errors.Join(os.WriteFile(image, b.Bytes(), 0o600), os.WriteFile(data, content, 0o600)); err != nil {
		return err
	}
	if err := erofs.Mount(image, []string{data}, below); err != nil {
		return err
	}
	defer unix.Unmount(below, unix.MNT_DETACH) //nolint:errcheck // mounted just now
	if err := o.Attach(above); err != nil {
		return err
	}
	defer unix.Unmount(above, unix.MNT_DETACH) //nolint:errcheck // mounted just now
	got, err := os.ReadFile(filepath.Join(above, "f"))
	if err == nil && !bytes.Equal(got, content) {
		err = errors.New("a file has other content")
	}
	return err
}

package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/internal/pidfd"
)

// orphanPoll is how often AwaitOrphans looks.
const orphanPoll = 50 * time.Millisecond

// AwaitOrphans waits for the end of CRIUs whose worker was killed: children of the
// process that has inherited them. A CRIU that ends a dump freezes what was frozen
// before, and would do so after it has been thawed.
func AwaitOrphans(ctx context.Context, parent int) error {
	for {
		there, err := hasOrphan(parent)
		if !there || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("CRIU of a worker that is gone does not end: %w", ctx.Err())
		case <-time.After(orphanPoll):
		}
	}
}

func hasOrphan(parent int) (bool, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		s, err := pidfd.Read(pid) // an error: it has ended
		if err == nil && s.Name == "criu" && s.State != 'Z' && s.Parent == parent {
			return true, nil
		}
	}
	return false, nil
}

// Tidy removes what a CRIU that was killed has left mounted in its working directory,
// so that who removes the directory does not remove what was mounted.
func Tidy(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".criu.*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := Detach(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// Detach unmounts a path with all below it. One that is no mount is left alone.
func Detach(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return &os.PathError{Op: "unmount", Path: path, Err: err}
}

package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat), " (")
		at := strings.LastIndexByte(rest, ')')
		if fields := strings.Fields(rest[at+1:]); at >= 0 && rest[:at] == "criu" && len(fields) > 1 && fields[0] != "Z" && fields[1] == strconv.Itoa(parent) {
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

package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// InMemory copies the files of a directory into memory and returns where they are,
// until drop: they are read there without the disk, whatever becomes of the page
// cache, as if another machine had them. It is for the function that Run calls.
func (s Settings) InMemory(from string) (dir string, drop func() error, err error) {
	if dir, err = os.MkdirTemp(s.Dir, "memory-"); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755,size=80%"); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mount a tmpfs at %s: %w", dir, err), os.Remove(dir))
	}
	// Detached: an answer that nobody waits for may still have a file open.
	drop = func() error { return errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)) }
	files, err := os.ReadDir(from)
	if err != nil {
		return "", nil, errors.Join(err, drop())
	}
	for _, f := range files {
		if err := copyFile(filepath.Join(dir, f.Name()), filepath.Join(from, f.Name())); err != nil {
			return "", nil, errors.Join(err, drop())
		}
	}
	return dir, drop, nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

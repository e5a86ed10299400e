package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // names of aufs itself, and the opaque marker
	whiteoutOpaque = ".wh..wh..opq"
)

// whiteout hides a name, or all names of a directory, of the layers below. What
// this layer itself has under the name stays, in whatever order the stream lists
// the two.
func (t *tree) whiteout(fd int, p, base string) error {
	if base == whiteoutOpaque {
		d, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(d)
		return unix.Fsetxattr(d, opaqueXattr, []byte("y"), 0)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("whiteout %.200q names nothing: %w", p, errs.Invalid)
	}
	if _, ok := t.links[path.Join(path.Dir(p), hidden)]; ok {
		return nil // the link, made later, hides it
	}
	st, err := statAt(fd, hidden)
	switch {
	case errors.Is(err, unix.ENOENT):
		return unix.Mknodat(fd, hidden, unix.S_IFCHR, 0)
	case err == nil && isDir(st):
		delete(t.implied, st.Ino) // the directory below is gone, and its owner with it
		return setOpaque(fd, hidden)
	}
	return err
}

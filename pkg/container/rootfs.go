package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/procfd"
	"github.com/berth-run/berth/pkg/spec"
)

// openIn opens a path as a process confined to rootfs would see it: links are
// followed, none leads out (openat2, Linux 5.6). With O_PATH in flags nothing
// happens to what is found there.
func openIn(rootfs, path string, flags uint64) (*os.File, error) {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: rootfs, Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openRegular opens a regular file of the image for reading, and returns nil
// where there is none. Anything else at that path, such as a device, is refused
// before it is opened.
func openRegular(rootfs, path string) (*os.File, error) {
	found, err := openIn(rootfs, path, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer found.Close()
	f, err := procfd.OpenRegular(found)
	if errors.Is(err, procfd.ErrNotRegular) {
		err = fmt.Errorf("%s of the image is %w: %w", path, err, errs.Invalid)
	}
	return f, err
}

// resolveUser looks the user up in the image's own passwd and group.
func resolveUser(rootfs string, c *cri.ContainerConfig, imageUser string) (spec.User, error) {
	passwd, err := openRegular(rootfs, "etc/passwd")
	if err != nil {
		return spec.User{}, err
	}
	defer passwd.Close()
	group, err := openRegular(rootfs, "etc/group")
	if err != nil {
		return spec.User{}, err
	}
	defer group.Close()
	return spec.ResolveUser(c, imageUser, reader(passwd), reader(group))
}

// reader keeps a nil file from becoming a Reader that is not nil.
func reader(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}

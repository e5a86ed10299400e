package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/errs"
)

// System looks at single paths of this host, for code that decides by them.
// The zero value is ready.
type System struct{}

// maxDevices bounds a walk through a directory of devices.
const maxDevices = 16384

// Devices returns the device nodes at path: that one, or all below it where it
// is a directory. A symbolic link at path is followed, none below it. Path in
// each result is the host's; owner and mode are the node's.
func (System) Devices(path string) ([]specs.LinuxDevice, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", path, kindOf(err))
	}
	if !info.IsDir() {
		d, ok := device(path)
		if !ok {
			return nil, fmt.Errorf("device %s: is no device node: %w", path, errs.Invalid)
		}
		return []specs.LinuxDevice{d}, nil
	}
	// WalkDir would not enter a symbolic link.
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("devices in %s: %w", path, kindOf(err))
	}
	var out []specs.LinuxDevice
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return skipVanished(err)
		case e.IsDir() && p != root && skipped[p]:
			return fs.SkipDir
		case e.Type()&fs.ModeDevice == 0 || p == "/dev/console":
			return nil
		case len(out) >= maxDevices:
			return fmt.Errorf("devices in %s: more than %d: %w", path, maxDevices, errs.Exhausted)
		}
		if d, ok := device(p); ok {
			d.Path = filepath.Join(path, strings.TrimPrefix(p, root))
			out = append(out, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// skipped are the directories of /dev whose content belongs to the host's own
// mounts there.
var skipped = map[string]bool{"/dev/pts": true, "/dev/shm": true, "/dev/fd": true, "/dev/mqueue": true, "/dev/.lxc": true, "/dev/.lxd-mounts": true, "/dev/.udev": true}

func skipVanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

func device(path string) (specs.LinuxDevice, bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return specs.LinuxDevice{}, false
	}
	d := specs.LinuxDevice{Path: path, Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev)))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return specs.LinuxDevice{}, false
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, true
}

// EnsureSource prepares the source of a bind mount: it makes a directory where
// nothing is, as kubelet expects of hostPath volumes without a type, and
// returns the path with every symbolic link resolved.
func EnsureSource(path string) (string, error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("mount source %q is no absolute path: %w", path, errs.Invalid)
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("mount source %s: %w", path, kindOf(err))
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("make mount source %s: %w", path, err)
	}
	real, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("mount source %s: %w", path, kindOf(err))
	}
	return real, nil
}

// readAll reads r to its end, which must come within limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("file is larger than %d bytes: %w", limit, errs.Invalid)
	}
	return b, nil
}

// kindOf adds the kind to an error of the os package.
func kindOf(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errs.NotFound, err)
	}
	return err
}

package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth/pkg/errs"
)

// prepareVolumes makes what the pod's volumes need and returns their host
// paths. It is idempotent: a restarted daemon finds them as they were.
func prepareVolumes(p *corev1.Pod, dir string) (map[string]string, error) {
	paths := map[string]string{}
	for _, v := range p.Spec.Volumes {
		var err error
		if v.EmptyDir != nil {
			paths[v.Name] = filepath.Join(dir, v.Name)
			err = prepareEmptyDir(v.EmptyDir, paths[v.Name], fsGroup(p))
		} else {
			paths[v.Name] = v.HostPath.Path
			err = prepareHostPath(v.HostPath)
		}
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", v.Name, err)
		}
	}
	return paths, nil
}

func fsGroup(p *corev1.Pod) *int64 {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	return p.Spec.SecurityContext.FSGroup
}

func prepareEmptyDir(v *corev1.EmptyDirVolumeSource, path string, group *int64) error {
	switch v.Medium {
	case corev1.StorageMediumDefault, corev1.StorageMediumMemory:
	default:
		return fmt.Errorf("medium %q is not supported by berth apply: %w", v.Medium, errs.Unsupported)
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if v.Medium == corev1.StorageMediumMemory {
		if err := mountTmpfs(v, path); err != nil {
			return err
		}
	}
	mode := fs.FileMode(0o777) // any user of the pod may write, as with kubelet
	if group != nil {
		if err := os.Chown(path, -1, int(*group)); err != nil {
			return err
		}
		mode |= fs.ModeSetgid
	}
	return os.Chmod(path, mode)
}

func mountTmpfs(v *corev1.EmptyDirVolumeSource, path string) error {
	if mounted, err := isMountPoint(path); err != nil || mounted {
		return err
	}
	options := ""
	if v.SizeLimit != nil {
		options = fmt.Sprintf("size=%d", v.SizeLimit.Value())
	}
	return os.NewSyscallError("mount", unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options))
}

// isMountPoint compares the device with that of the directory above, which
// tells for a tmpfs: it always has one of its own.
func isMountPoint(path string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Lstat(path, &here); err != nil {
		return false, os.NewSyscallError("lstat", err)
	}
	if err := unix.Lstat(filepath.Dir(path), &above); err != nil {
		return false, os.NewSyscallError("lstat", err)
	}
	return here.Dev != above.Dev, nil
}

// removeVolumes removes what prepareVolumes made. Missing is fine.
func removeVolumes(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if mounted, err := isMountPoint(path); err == nil && mounted {
			if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				return os.NewSyscallError("umount", err)
			}
		}
	}
	return os.RemoveAll(dir)
}

// prepareHostPath makes what the type wants made, and checks the rest.
func prepareHostPath(v *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if v.Type != nil {
		kind = *v.Type
	}
	switch kind {
	case corev1.HostPathUnset:
		return nil // a missing directory is the runtime's to make
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(v.Path, 0o755); err != nil {
			return err
		}
		kind = corev1.HostPathDirectory
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
		kind = corev1.HostPathFile
	}
	return checkHostPath(v.Path, kind)
}

func checkHostPath(path string, kind corev1.HostPathType) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	mode := info.Mode()
	ok := false
	switch kind {
	case corev1.HostPathDirectory:
		ok = mode.IsDir()
	case corev1.HostPathFile:
		ok = mode.IsRegular()
	case corev1.HostPathSocket:
		ok = mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	}
	if !ok {
		return fmt.Errorf("%s is no %s: %w", path, kind, errs.Invalid)
	}
	return nil
}

// Package mountpoint tells what is mounted. It mounts nothing and keeps nothing.
package mountpoint

import "golang.org/x/sys/unix"

// Is reports whether something is mounted at path, which is not followed if it is
// a symbolic link.
func Is(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

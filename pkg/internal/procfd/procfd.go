// Package procfd reaches what a descriptor holds, an O_PATH one too, by its name in
// /proc, whatever the path that it was opened by leads to by now.
package procfd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Path names what the descriptor holds, as long as it is open.
func Path[Int ~int | ~uintptr](fd Int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// ErrNotRegular says that something is no regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenRegular opens for reading what found, an O_PATH descriptor, holds. Anything but
// a regular file is refused before it is opened.
func OpenRegular(found *os.File) (*os.File, error) {
	info, err := found.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotRegular
	}
	return os.Open(Path(found.Fd()))
}

// Xattrs lists the extended attributes; none where the file system has none.
func Xattrs[Int ~int | ~uintptr](fd Int) ([]string, error) {
	all, err := grow(func(buf []byte) (int, error) { return unix.Listxattr(Path(fd), buf) })
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(all) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	return strings.Split(strings.TrimSuffix(string(all), "\x00"), "\x00"), nil
}

// Xattr returns the value of an extended attribute.
func Xattr[Int ~int | ~uintptr](fd Int, name string) ([]byte, error) {
	value, err := grow(func(buf []byte) (int, error) { return unix.Getxattr(Path(fd), name, buf) })
	return value, os.NewSyscallError("getxattr", err)
}

// maxXattr is the kernel's bound on all names, and on a value; most are short.
const maxXattr = 64 << 10

// grow calls read with a buffer that it finds large enough.
func grow(read func(buf []byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := read(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxXattr)
		n, err = read(buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

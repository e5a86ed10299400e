package network

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/network/native"
)

// isNetNS says whether path is a namespace, not just the file that it was
// mounted on.
func isNetNS(path string) bool {
	if path == "" {
		return false
	}
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// inNetNS runs f in a thread that has joined the namespace at path.
func inNetNS(path string, f func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer target.Close()
	return native.InNetNS(target, f)
}

// loopbackUp sets lo up, which gives it 127.0.0.1 and ::1.
func loopbackUp(netns string) error {
	return inNetNS(netns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("set loopback up: %w", err)
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
			return fmt.Errorf("set loopback up: %w", err)
		}
		req.SetUint16(req.Uint16() | unix.IFF_UP)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return fmt.Errorf("set loopback up: %w", err)
		}
		return nil
	})
}

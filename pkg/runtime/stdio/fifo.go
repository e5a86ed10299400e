package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeFIFO makes a FIFO at path, or takes one that a dead process left.
func makeFIFO(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

// openFIFO opens the FIFO at path and refuses anything else there.
func openFIFO(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		err = errors.New("not a FIFO")
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was written
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// childEnd opens the container's end of a FIFO, in blocking mode. It is opened
// once more, by its descriptor: flags such as O_NOFOLLOW stay with an open file,
// and CRIU, which opens what it is given in the same way, would have to follow a
// link.
func childEnd(dir, name string, flags int) (*os.File, error) {
	fd, err := openFIFO(filepath.Join(dir, name), flags)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s again: %w", name, err)
	}
	return os.NewFile(uintptr(again), name), nil
}

// bigPipe is the size of busy FIFOs: the largest that needs no capability.
const bigPipe = 1 << 20

// grow makes the FIFO behind fd large, where allowed, and returns its size.
func grow(fd int) int {
	if n, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, bigPipe); err == nil {
		return n
	}
	n, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 0
	}
	return n
}

// buffered returns how many bytes lie in the FIFO behind fd.
func buffered(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// ready reports whether fd has one of the events now.
func ready(fd int, events int16) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&events != 0
}

// noRoom reports whether the FIFO behind the read-only fd takes no more. Each
// splice or sendfile takes a slot of it, were it for one byte: slots run out long
// before the bytes of an unfinished line do. Only a writer can tell, which we are
// for this moment: if the last other one goes meanwhile, our going is the end of
// the file.
func noRoom(fd int) bool {
	writer, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(writer)
	return !ready(writer, unix.POLLOUT)
}

package supervisor

import (
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openGate opens the FIFO at which a created process waits and gives a copy to
// the anchor. Should this worker be killed in between, the process would find
// nobody at the gate and end, where the host has no freezer to hold it; so all is
// prepared beforehand, and what remains in between are some instructions. Once it
// is sent, the descriptor is open for as long as the message waits or the anchor
// keeps it.
func (k *keeper) openGate(id, path string) (int, error) {
	data, err := json.Marshal(&message{Op: opPut, ID: id, Names: []string{nameGate}})
	if err != nil {
		return -1, err
	}
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return -1, err
	}
	rights := unix.UnixRights(0)
	place := (*int32)(unsafe.Pointer(&rights[unix.CmsgLen(0)]))
	iov := syscall.Iovec{Base: &data[0], Len: uint64(len(data))}
	header := syscall.Msghdr{Iov: &iov, Iovlen: 1, Control: &rights[0], Controllen: uint64(len(rights))}
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC

	at := unix.AT_FDCWD
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(name)), flags, 0, 0, 0)
	if errno != 0 {
		return -1, &os.PathError{Op: "open", Path: path, Err: errno}
	}
	*place = int32(fd)
	_, _, errno = syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(k.link), uintptr(unsafe.Pointer(&header)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	if errors.Is(errno, unix.EAGAIN) || errors.Is(errno, unix.EINTR) { // the anchor is busy
		k.put(&entry{ID: id, FDs: map[string]int{nameGate: int(fd)}})
	}
	return int(fd), nil
}

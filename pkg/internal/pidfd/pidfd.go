// Package pidfd knows processes by descriptors, whose meaning no reuse of a
// number changes: which process it is, that it has ended, and how. It keeps
// nothing and reaps only on demand. A Watcher has one goroutine, and one for
// each call that it makes.
package pidfd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Unknown is the exit code that nobody could learn.
const Unknown = -1

// Begun returns when the process began, in clock ticks since boot: with the
// pid it names the process for ever.
func Begun(pid int) (uint64, error) {
	s, err := Read(pid)
	return s.Begun, err
}

// Stat is what /proc/PID/stat says of a process.
type Stat struct {
	Name   string
	State  byte // Z: it has ended, and waits for being reaped
	Parent int
	Begun  uint64 // in clock ticks since boot
}

// Read reads the Stat of a process.
func Read(pid int) (Stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	// The name, in parentheses, may hold anything; field 3 follows it.
	from, to := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	fields := bytes.Fields(data[to+1:])
	if from < 0 || to < from || len(fields) < 20 {
		return Stat{}, fmt.Errorf("stat of process %d has %d fields", pid, len(fields))
	}
	s := Stat{Name: string(data[from+1 : to]), State: fields[0][0]}
	s.Parent, err = strconv.Atoi(string(fields[1]))
	if err == nil {
		s.Begun, err = strconv.ParseUint(string(fields[19]), 10, 64)
	}
	return s, err
}

// Open returns a pidfd of the process that has that pid and beginning.
func Open(pid int, since uint64) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	// Looked up after the open: the pid cannot have been reused in between.
	if at, err := Begun(pid); err != nil || at != since {
		_ = unix.Close(fd) // another process
		return -1, unix.ESRCH
	}
	return fd, nil
}

// Signal sends a signal. A process that has ended gets none, which is no error.
func Signal(fd int, sig unix.Signal) error {
	err := unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Over reports whether the process has ended, reaped or not, within wait
// milliseconds.
func Over(fd, wait int) (bool, error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, wait)
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return n > 0, err
}

// AwaitEnd waits until the process has ended, reaped or not, or ctx has.
func AwaitEnd(ctx context.Context, fd int) error {
	for ctx.Err() == nil {
		if over, err := Over(fd, 50); over || err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Receive returns the pidfd that comes over a socket. It waits for one, or for
// the other end to be closed.
func Receive(socket *os.File) (*os.File, error) {
	space := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 64), space, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(space[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive descriptor: %d control messages: %w", len(messages), errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive descriptor: %d descriptors: %w", len(fds), errors.Join(err, unix.EBADMSG))
	}
	return os.NewFile(uintptr(fds[0]), "pidfd"), nil
}

// siginfo is the part of siginfo_t that waitid fills.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
}

const cldExited = 1 // CLD_EXITED; the others tell of signals

// Look returns the exit code of a child that has ended, and leaves it there for
// Reap. unix.EAGAIN says that it lives, unix.ECHILD that it is no child of this
// process.
func Look(fd int) (int32, error) {
	pid, exit, err := look(unix.P_PIDFD, fd)
	if err == nil && pid == 0 {
		err = unix.EAGAIN
	}
	return exit, err
}

// Ended returns some child that has ended, and leaves it there; pid is 0 where
// there is none.
func Ended() (pid int, exit int32) {
	pid, exit, err := look(unix.P_ALL, 0)
	if err != nil {
		return 0, Unknown
	}
	return pid, exit
}

func look(kind, id int) (pid int, exit int32, err error) {
	var raw unix.Siginfo
	for {
		err := unix.Waitid(kind, id, &raw, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, Unknown, err
		}
		break
	}
	info := (*siginfo)(unsafe.Pointer(&raw))
	switch {
	case info.pid == 0:
		return 0, Unknown, nil
	case info.code == cldExited:
		return int(info.pid), info.status, nil
	}
	return int(info.pid), 128 + info.status, nil
}

// Reap lets go of a child that has ended; another's child is not ours to reap.
func Reap(fd int) {
	for errors.Is(unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil), unix.EINTR) {
		continue
	}
}

// Wait waits for a child to end, and reaps it.
func Wait(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Recall asks the kernel for the exit code of a process that somebody else has
// reaped (Linux 6.15).
func Recall(fd int) (exit int32, ok bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Unknown, false
	}
	status := unix.WaitStatus(info.Exit_code)
	if status.Signaled() {
		return 128 + int32(status.Signal()), true
	}
	return int32(status.ExitStatus()), true
}

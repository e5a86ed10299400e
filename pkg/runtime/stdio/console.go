package stdio

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// consoleLimit bounds the wait for the terminal of a process that has already
// been created.
const consoleLimit = 10 * time.Second

func (s *Stdio) openConsole() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	s.console = os.NewFile(uintptr(fds[0]), "console")
	s.child.Console = os.NewFile(uintptr(fds[1]), "console")
	return nil
}

// receiveMaster takes the terminal's master from the console socket and makes
// it non-blocking.
func receiveMaster(console *os.File) (int, error) {
	tv := unix.NsecToTimeval(int64(consoleLimit))
	sock := int(console.Fd())
	if err := unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return -1, err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("receive terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("receive terminal: %d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("receive terminal: %d descriptors: %w", len(fds), err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0]) // nothing was written
		return -1, err
	}
	return fds[0], nil
}

package oci

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berth-run/berth/pkg/runtime"
)

// console returns the path of a socket that gets the terminal of a process that is
// being made. pass is to be called once the command has ended: if well, it passes the
// terminal's master on to io.Console.
func console(sockets string, io runtime.ProcessIO) (socket string, pass func(well bool) error, err error) {
	socket = filepath.Join(sockets, rand.Text()[:12]) // a path must be short
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return "", nil, err
	}
	return socket, func(well bool) error {
		defer l.Close()
		if !well {
			return nil
		}
		// It has been sent: the command has ended.
		if err := l.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			return fmt.Errorf("terminal has not been sent: %w", err)
		}
		defer conn.Close()
		return passOn(conn, io)
	}, nil
}

func passOn(conn *net.UnixConn, io runtime.ProcessIO) error {
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("receive terminal: %d control messages: %w", len(messages), errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("receive terminal: %d descriptors: %w", len(fds), errors.Join(err, unix.EBADMSG))
	}
	master := os.NewFile(uintptr(fds[0]), "terminal")
	defer master.Close()
	err = unix.Sendmsg(int(io.Console.Fd()), name[:max(n, 1)], unix.UnixRights(int(master.Fd())), nil, unix.MSG_NOSIGNAL)
	return os.NewSyscallError("sendmsg", err)
}
